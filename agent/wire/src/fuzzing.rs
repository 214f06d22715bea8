//! Entry functions shared by fuzz targets and ordinary tests.
