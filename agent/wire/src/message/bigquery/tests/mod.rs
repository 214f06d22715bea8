//! BigQuery as its clients speak it.

mod jobs;
mod limits;
mod queries;
mod rows;
mod uploads;
