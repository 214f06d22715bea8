//! Finds open commands in their list without looking through all of it.

use std::{cell::Cell, collections::VecDeque};

/// Where the last one was. What is asked for is mostly that one, the next, the oldest or the newest.
#[derive(Debug, Default)]
pub(super) struct Places(Cell<usize>);

impl Places {
    /// The place of the one that `is` it.
    pub(super) fn find<T>(&self, list: &VecDeque<T>, is: impl Fn(&T) -> bool) -> Option<usize> {
        let last = self.0.get();
        let near = [last, last.saturating_add(1)];
        // From both ends toward the middle.
        let ends = (0..list.len().div_ceil(2)).flat_map(|steps| [steps, list.len() - 1 - steps]);
        let place = near.into_iter().chain(ends).find(|&place| list.get(place).is_some_and(&is))?;
        self.0.set(place);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMANDS: u32 = 100_001;

    /// How many were looked at for each of these.
    fn looks(asked: impl Iterator<Item = u32>, ends: bool) -> u64 {
        let mut list: VecDeque<u32> = (0..COMMANDS).collect();
        let (places, looks) = (Places::default(), Cell::new(0));
        for id in asked {
            let place = places.find(&list, |one| {
                looks.set(looks.get() + 1);
                *one == id
            });
            assert_eq!(place.and_then(|place| list.get(place)), Some(&id));
            if ends {
                list.remove(place.expect("it is there"));
            }
        }
        looks.get()
    }

    #[test]
    fn commands_are_found_where_they_are_without_a_search() {
        for (what, asked, ends) in [
            ("all end in their order", (0..COMMANDS).collect::<Vec<_>>(), true),
            ("all are let through in their order", (0..COMMANDS).collect(), false),
            ("those of the newest message are let through", (90_000..COMMANDS).collect(), false),
            ("the newest ends, then the next newest", (0..COMMANDS).rev().collect(), true),
            ("the newest again and again", vec![COMMANDS - 1; 100_000], false),
        ] {
            let count = asked.len() as u64;
            let looked = looks(asked.into_iter(), ends);
            assert!(looked <= 5 * count + 20_000, "{what}: {looked} for {count}");
        }
    }

    #[test]
    fn each_is_found_and_what_is_not_there_is_not() {
        for length in 0..6u32 {
            let list: VecDeque<u32> = (0..length).collect();
            for last in 0..8 {
                for id in 0..8 {
                    let places = Places(Cell::new(last));
                    let found = places.find(&list, |one| *one == id);
                    assert_eq!(found, (id < length).then_some(id as usize));
                }
            }
        }
    }
}
