//! Two users of one sidecar, each of whom repeats every operation on a sidecar of their own.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::Duration,
};

use test_support::{completes, random::Random};
use tokio::join;

use crate::{
    deployment::Deployment,
    known::Kind,
    operations::{Operation, Page, Scene},
    view::{Outcome, View},
};

/// Number of previous operations in a failure.
const SHOWN_OPERATIONS: usize = 12;

/// Number of calls by method and outcome.
#[derive(Debug, Default)]
pub(crate) struct Coverage(BTreeMap<&'static str, BTreeMap<String, u32>>);

/// Two users.
pub(crate) struct Pair {
    random: Random,
    users: [User; 2],
}

struct User {
    name: String,
    shared: View,
    alone: View,
    pages: Vec<Page>,
    /// Ids that the other user has claimed after this user had removed the object.
    taken: HashSet<String>,
    latest: VecDeque<String>,
}

impl Coverage {
    fn count(&mut self, rpc: &'static str, code: &str) {
        let codes = self.0.entry(rpc).or_default();
        *codes.entry(code.to_owned()).or_default() += 1;
    }

    /// What is missing: a method that was not called, or never with success, or never with an error.
    pub(crate) fn missing(&self, methods: &[String]) -> Option<String> {
        methods.iter().find_map(|method| {
            let Some(codes) = self.0.get(method.as_str()) else {
                return Some(format!("{method} has no operations"));
            };
            if !codes.contains_key("Ok") {
                return Some(format!("{method} never succeeded"));
            }
            (codes.len() == 1).then(|| format!("{method} never failed"))
        })
    }
}

impl Pair {
    pub(crate) fn new(deployment: &Deployment, seed: u64, number: usize) -> Self {
        let user = |position: usize| User {
            name: format!("user-{seed}-{number}-{position}"),
            shared: View::new(&deployment.shared),
            alone: View::new(&deployment.alone[position]),
            pages: Vec::new(),
            taken: HashSet::new(),
            latest: VecDeque::new(),
        };
        Self {
            random: Random::new(seed ^ ((number as u64) << 32)),
            users: [user(0), user(1)],
        }
    }

    /// Executes operations until there are enough, or until a server was not available in time.
    /// Returns the number of operations.
    pub(crate) async fn run(&mut self, operations: u32, coverage: &mut Coverage) -> u32 {
        let mut executed = 0;
        while executed < operations {
            let Some(count) = self.step(coverage).await else {
                break;
            };
            executed += count;
        }
        executed.min(operations)
    }

    /// Executes one operation of each user. `None` if a server was not available in time.
    async fn step(&mut self, coverage: &mut Coverage) -> Option<u32> {
        let planned = [self.plan(0), self.plan(1)];
        if planned.iter().all(|operation| operation.claimed.is_none()) {
            let [first, second] = &mut self.users;
            // The calls of both users overlap.
            let both = async { join!(first.execute(&planned[0]), second.execute(&planned[1])) };
            let (first, second) = completes("both users receive responses", both).await;
            self.accept(0, &planned[0], first?, coverage);
            self.accept(1, &planned[1], second?, coverage);
        } else {
            for position in [0, 1] {
                // The second operation depends on whether the first one has taken an id.
                let planned = self.plan(position);
                let executed = self.users[position].execute(&planned);
                let accepted = completes("a user receives a response", executed).await?;
                self.accept(position, &planned, accepted, coverage);
            }
        }
        // The order of sessions is the order of their uses in milliseconds.
        if planned.iter().any(Operation::uses_a_session) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Some(2)
    }

    fn accept(
        &mut self,
        position: usize,
        operation: &Operation,
        accepted: Accepted,
        coverage: &mut Coverage,
    ) {
        coverage.count(operation.rpc, &accepted.code);
        self.users[1 - position].taken.extend(accepted.claimed);
    }

    fn plan(&mut self, position: usize) -> Operation {
        let (user, other) = (&self.users[position], &self.users[1 - position]);
        Scene {
            random: &mut self.random,
            user: &user.name,
            other_user: &other.name,
            known: &user.shared.known,
            foreign: &other.shared.known,
            pages: &user.pages,
            taken: &user.taken,
        }
        .operation()
    }
}

/// What an executed operation means for the next ones.
struct Accepted {
    code: String,
    /// Id of a removed object of the other user that now belongs to this one.
    claimed: Option<String>,
}

impl User {
    /// Executes an operation on both servers and compares the responses. `None` if a server was not
    /// available in time.
    async fn execute(&mut self, operation: &Operation) -> Option<Accepted> {
        self.latest.push_back(operation.to_string());
        if self.latest.len() > SHOWN_OPERATIONS {
            self.latest.pop_front();
        }
        let (shared, alone) = if let Some(id) = &operation.claimed {
            let shared = self.shared.call(operation).await;
            if shared.is_disturbed() {
                return None;
            }
            if is_documented_conflict(operation, &shared) {
                let code = shared.code;
                return Some(Accepted {
                    code,
                    claimed: None,
                });
            }
            let alone = self.alone.call(operation).await;
            self.compare(operation, &shared, &alone)?;
            let claimed = (shared.code == "Ok").then(|| id.clone());
            return Some(Accepted {
                code: shared.code,
                claimed,
            });
        } else {
            join!(self.shared.call(operation), self.alone.call(operation))
        };
        self.compare(operation, &shared, &alone)?;
        Some(Accepted {
            code: shared.code,
            claimed: None,
        })
    }

    fn compare(&mut self, operation: &Operation, shared: &Outcome, alone: &Outcome) -> Option<()> {
        if shared.is_disturbed() || alone.is_disturbed() {
            return None;
        }
        let (in_company, by_itself) = (self.shared.accept(shared), self.alone.accept(alone));
        assert!(
            in_company == by_itself,
            "{} receives another response than without the other user\nlatest operations: {:#?}\n\
             shared: {in_company}\nalone: {by_itself}\nbefore normalization: {}\n{}",
            self.name,
            self.latest,
            shared.received,
            alone.received
        );
        let pages = self.shared.known.of(Kind::PageToken).len();
        if pages > self.pages.len() {
            self.pages.push(Page {
                rpc: operation.rpc,
                request: operation.requests[0].clone(),
            });
            assert_eq!(pages, self.pages.len(), "a response has one page token");
        }
        Some(())
    }
}

/// Whether a call was rejected because the id that it chose for a new object is in use. Ids that
/// callers choose are unique among all users, so that this response depends on others.
fn is_documented_conflict(operation: &Operation, outcome: &Outcome) -> bool {
    let expected = match operation.rpc {
        "BeginTurn" => "NotFound",
        _ => "AlreadyExists",
    };
    outcome.code == expected
}
