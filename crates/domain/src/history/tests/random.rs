//! Random conversations and budgets, compared with a checker that shares no code with the
//! selection: it searches backwards, and over whole conversations only.

use std::thread;

use super::*;

const CONVERSATIONS: u64 = 100_000;
const THREADS: usize = 4;
const IDS: [&str; 24] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s",
    "t", "u", "v", "w", "x",
];

#[test]
fn random_conversations_yield_the_largest_valid_histories() {
    thread::scope(|scope| {
        for first in 0..THREADS as u64 {
            scope.spawn(move || {
                for seed in (first..CONVERSATIONS).step_by(THREADS) {
                    check(seed);
                }
            });
        }
    });
}

fn check(seed: u64) {
    let mut random = Random::new(seed);
    let items = random.conversation();
    let budget = random.budget();
    let context = || format!("seed {seed}: {budget:?} {items:#?}");
    let whole = match select_history(&items, OlderMessages::None, &budget) {
        HistorySelection::Selected(selected) => selected,
        HistorySelection::NeedsOlder => panic!("needs older: {}", context()),
    };
    let checker = Checker::new(&items);
    if let Err(violation) = checker.check(&whole, &budget) {
        panic!("{violation}: {whole:?} {}", context());
    }
    for start in 0..=items.len() {
        let of_newest = select_history(&items[start..], OlderMessages::Unread, &budget);
        let HistorySelection::Selected(selected) = of_newest else {
            let is_decided = checker.is_decided_by(start, &budget);
            assert!(!is_decided, "{start} suffices: {}", context());
            continue;
        };
        let indexes: Vec<usize> = selected.indexes.iter().map(|at| at + start).collect();
        assert_eq!(indexes, whole.indexes, "from {start}: {}", context());
        assert_eq!(selected.tokens, whole.tokens, "{}", context());
        assert!(selected.omits_older);
    }
}

/// The units of a conversation.
struct Checker<'a> {
    items: &'a [HistoryItem<'a>],
    /// Valid units, those whose first message is the newest first.
    units: Vec<Vec<usize>>,
}

impl<'a> Checker<'a> {
    fn new(items: &'a [HistoryItem<'a>]) -> Self {
        let mut is_invalid = vec![false; items.len()];
        let mut links = Vec::new();
        let mut unanswered = calls_of(items);
        for (at, item) in items.iter().enumerate() {
            for id in &item.results {
                match answered_call(items, at, id) {
                    Some(call) if unanswered.contains(&(call, id)) => {
                        unanswered.retain(|open| *open != (call, id));
                        links.push((call, at));
                    }
                    _ => is_invalid[at] = true,
                }
            }
            if at > 0 && is_continuation(&items[at - 1], item) {
                links.push((at - 1, at));
            }
        }
        for (call, id) in unanswered {
            let later = &items[call + 1..];
            let is_open = may_follow_open_call(later);
            if !is_open || later.iter().any(|item| item.calls.contains(&id)) {
                is_invalid[call] = true;
            }
        }
        let mut units: Vec<Vec<usize>> = Vec::new();
        let mut is_seen = vec![false; items.len()];
        for start in 0..items.len() {
            let mut unit = Vec::new();
            let mut pending = vec![start];
            while let Some(at) = pending.pop() {
                if !std::mem::replace(&mut is_seen[at], true) {
                    unit.push(at);
                    let other = |&(a, b): &(usize, usize)| match at {
                        _ if at == a => Some(b),
                        _ if at == b => Some(a),
                        _ => None,
                    };
                    pending.extend(links.iter().filter_map(other));
                }
            }
            unit.sort_unstable();
            if !unit.is_empty() && !unit.iter().any(|&at| is_invalid[at]) {
                units.insert(0, unit);
            }
        }
        Self { items, units }
    }

    fn check(&self, whole: &SelectedMessages, budget: &HistoryBudget) -> Result<(), &'static str> {
        let kept = &whole.indexes;
        if !kept.is_sorted_by(|a, b| a < b) {
            return Err("not in order");
        }
        self.check_pairs(kept)?;
        let expected = self.largest(budget);
        if *kept != self.without_leading(expected, budget) {
            return Err("not the largest history");
        }
        if whole.tokens != self.tokens(kept) {
            return Err("wrong number of tokens");
        }
        if whole.omits_older != (kept.len() < self.items.len()) {
            return Err("wrong omission");
        }
        Ok(())
    }

    /// Checks what model APIs check, message by message.
    fn check_pairs(&self, kept: &[usize]) -> Result<(), &'static str> {
        let mut open: Vec<(usize, &str)> = Vec::new();
        for &at in kept {
            for &id in &self.items[at].results {
                match open.iter().position(|(_, call)| *call == id) {
                    None => return Err("orphaned result"),
                    Some(position) => drop(open.remove(position)),
                }
            }
            for &id in &self.items[at].calls {
                if open.iter().any(|(_, call)| *call == id) {
                    return Err("two open calls with the same id");
                }
                open.push((at, id));
            }
        }
        let is_last = |&(call, _): &(usize, &str)| may_follow_open_call(&self.items[call + 1..]);
        if open.iter().all(is_last) {
            Ok(())
        } else {
            Err("call without result")
        }
    }

    fn newest(&self) -> Option<&Vec<usize>> {
        self.units.iter().max_by_key(|unit| unit.last())
    }

    /// Adds units as long as they fit.
    fn largest(&self, budget: &HistoryBudget) -> Vec<usize> {
        let Some(newest) = self.newest() else {
            return Vec::new();
        };
        if newest.len() > 1 && self.bytes(newest) > budget.max_bytes {
            return Vec::new();
        }
        let mut kept = newest.clone();
        for unit in self.units.iter().filter(|unit| *unit != newest) {
            let larger = [kept.as_slice(), unit].concat();
            if !self.fits(&larger, budget) {
                break;
            }
            kept = larger;
        }
        kept.sort_unstable();
        kept
    }

    /// Removes the oldest unit until the first message is a user's.
    fn without_leading(&self, mut kept: Vec<usize>, budget: &HistoryBudget) -> Vec<usize> {
        while let Some(&first) = kept.first() {
            if !budget.start_on_user || self.items[first].role == Role::User {
                break;
            }
            let unit = self.units.iter().find(|unit| unit.contains(&first));
            kept.retain(|at| !unit.unwrap().contains(at));
        }
        kept
    }

    /// Whether the messages from `start` on certainly determine the history: no message is
    /// invalid, and the selection ended within them.
    fn is_decided_by(&self, start: usize, budget: &HistoryBudget) -> bool {
        let valid: usize = self.units.iter().map(Vec::len).sum();
        let kept = self.largest(budget);
        let ended_at = self.units.iter().find(|unit| !kept.contains(&unit[0]));
        valid == self.items.len()
            && ended_at.is_some_and(|unit| unit[0] > start)
            && self.newest().is_some_and(|unit| unit[0] > start)
            && kept.iter().all(|at| *at > start)
    }

    fn fits(&self, kept: &[usize], budget: &HistoryBudget) -> bool {
        kept.len() <= budget.limit
            && self.tokens(kept) <= budget.max_tokens.unwrap_or(u64::MAX)
            && self.bytes(kept) <= budget.max_bytes
    }

    fn tokens(&self, kept: &[usize]) -> u64 {
        kept.iter().map(|at| self.items[*at].tokens).sum()
    }

    fn bytes(&self, kept: &[usize]) -> usize {
        kept.iter().map(|at| self.items[*at].bytes).sum()
    }
}

fn calls_of<'a>(items: &[HistoryItem<'a>]) -> Vec<(usize, &'a str)> {
    let calls = items.iter().enumerate();
    calls
        .flat_map(|(at, item)| item.calls.iter().map(move |id| (at, *id)))
        .collect()
}

/// The latest message before `at` with a call of this id.
fn answered_call(items: &[HistoryItem<'_>], at: usize, id: &str) -> Option<usize> {
    (0..at).rev().find(|&call| items[call].calls.contains(&id))
}

fn is_continuation(previous: &HistoryItem<'_>, item: &HistoryItem<'_>) -> bool {
    let is_plain_tool = item.role == Role::Tool && item.results.is_empty();
    let follows_model = matches!(previous.role, Role::Assistant | Role::Tool);
    let follows_reasoning = item.role == Role::Assistant && previous.has_only_reasoning;
    is_plain_tool && follows_model || follows_reasoning
}

/// Whether the messages after a call are further calls and then results.
fn may_follow_open_call(later: &[HistoryItem<'_>]) -> bool {
    let calls = later.iter().take_while(|item| item.role != Role::Tool);
    let results = &later[calls.clone().count()..];
    calls
        .into_iter()
        .all(|item| !item.calls.is_empty() || item.has_only_reasoning)
        && results.iter().all(|item| item.role == Role::Tool)
}

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 to `end` - 1 (xorshift64*).
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    fn budget(&mut self) -> HistoryBudget {
        let largest = [6, 50][self.below(2)];
        HistoryBudget {
            limit: 1 + self.below(largest),
            max_tokens: self.one_in(2).then(|| self.below(120) as u64),
            max_bytes: if self.one_in(3) {
                self.below(120)
            } else {
                usize::MAX
            },
            start_on_user: self.one_in(3),
        }
    }

    fn conversation(&mut self) -> Vec<HistoryItem<'static>> {
        let mut items = Vec::new();
        let len = self.below(20);
        // Few ids are used again while their calls are open.
        let ids = [2, 5, IDS.len()][self.below(3)];
        let is_valid = self.one_in(3);
        while items.len() < len {
            match self.below(if is_valid { 5 } else { 10 }) {
                0 => items.push(self.plain(Role::User)),
                1 => items.push(self.plain(Role::Assistant)),
                2..5 => self.tool_use(ids, is_valid, &mut items),
                5 => {
                    let result = self.ids(ids, 2);
                    items.push(self.message(Role::Tool, Vec::new(), result));
                }
                6 => {
                    let calls = self.ids(ids, 3);
                    items.push(self.message(Role::Assistant, calls, Vec::new()));
                }
                7 => items.push(self.plain(Role::Tool)),
                8 => items.push(self.plain(Role::System)),
                _ => items.push(self.reasoning()),
            }
        }
        items
    }

    /// Adds calls, also parallel and nested ones, and their results in any order and number of
    /// messages.
    fn tool_use(&mut self, ids: usize, is_valid: bool, items: &mut Vec<HistoryItem<'static>>) {
        let mut open: Vec<&str> = Vec::new();
        let mut calls_left = 1 + self.below(3);
        while calls_left > 0 || !open.is_empty() {
            if calls_left > 0 && (open.is_empty() || self.one_in(2)) {
                calls_left -= 1;
                let mut calls = self.ids(ids, 3);
                calls.retain(|id| !open.contains(id));
                open.extend(&calls);
                if self.one_in(4) {
                    items.push(self.reasoning());
                }
                items.push(self.message(Role::Assistant, calls, Vec::new()));
            } else {
                let mut results = Vec::new();
                for _ in 0..=self.below(2) {
                    if !open.is_empty() {
                        results.push(open.swap_remove(self.below(open.len())));
                    }
                }
                items.push(self.message(Role::Tool, Vec::new(), results));
            }
            if !is_valid && self.one_in(8) {
                return;
            }
        }
    }

    /// One to `max` different ids of the first `ids`.
    fn ids(&mut self, ids: usize, max: usize) -> Vec<&'static str> {
        let mut chosen = Vec::new();
        for _ in 0..=self.below(max) {
            let id = IDS[self.below(ids)];
            if !chosen.contains(&id) {
                chosen.push(id);
            }
        }
        chosen
    }

    fn reasoning(&mut self) -> HistoryItem<'static> {
        HistoryItem {
            has_only_reasoning: true,
            ..self.plain(Role::Assistant)
        }
    }

    fn plain(&mut self, role: Role) -> HistoryItem<'static> {
        HistoryItem::plain(role, self.below(20) as u64, self.below(20))
    }

    fn message(
        &mut self,
        role: Role,
        calls: Vec<&'static str>,
        results: Vec<&'static str>,
    ) -> HistoryItem<'static> {
        HistoryItem {
            calls,
            results,
            ..self.plain(role)
        }
    }
}
