//! A Lua chunk that is given the input as a string, in a state that is used again and again.

use node_lua::vm::state::State;

use super::super::vm;

/// Bytes a state may use: an input that asks for more gets an error, and a new state after it.
pub(super) const MEMORY: usize = 256 << 20;

/// After so many inputs a state is replaced: what leaks inside it shows as growth of the process.
const RUNS_MAX: u32 = 20_000;

/// A chunk, loaded.
pub(super) struct Program {
    name: &'static str,
    source: &'static str,
    loaded: Option<(State, u32)>,
}

impl Program {
    pub(super) const fn new(name: &'static str, source: &'static str) -> Program {
        Program { name, source, loaded: None }
    }

    /// Calls the function that the chunk returned with the input. Panics if it raises.
    pub(super) fn run(&mut self, input: &[u8], open: fn(&State)) {
        let (state, runs) = self.loaded.get_or_insert_with(|| {
            let state = vm::state();
            open(&state);
            vm::run(&state, self.name, self.source).expect("the chunk");
            state.account().set_limit(MEMORY);
            (state, 0)
        });
        *runs += 1;
        let result = vm::call_global(state, c"fuzz", input);
        let (used_up, exceeded) = (*runs >= RUNS_MAX, state.account().exceeded());
        if used_up || exceeded {
            self.loaded = None;
        }
        match result {
            Err(text) if !exceeded => panic!("{text}"),
            _ => {}
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The thread ends: finalisers would call functions that find what they keep for it gone.
        std::mem::forget(self.loaded.take());
    }
}
