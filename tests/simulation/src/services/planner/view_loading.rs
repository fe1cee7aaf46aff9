//! Loads the view of a planner from the rows.

use std::collections::BTreeMap;

use nixfleet_plan::FleetView;
use nixfleet_proto::snapshot::{Cursor, Origin};
use nixfleet_proto::subject::Partition;

use crate::addressing::{Incarnation, Route};
use crate::simulated_servers::{LogId, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// A view that is being loaded.
#[derive(Debug)]
pub struct ViewLoading {
    pub call: u64,
    step: Step,
    pub view: FleetView,
    /// Where following begins.
    pub next: BTreeMap<Partition, LogStart>,
}

/// Where following an output log begins.
#[derive(Debug, Clone, Copy)]
pub struct LogStart {
    pub next: u64,
    pub origin: Origin,
}

/// The call that is pending.
#[derive(Debug)]
enum Step {
    Cursors,
    Layout,
    Rows(Partition),
    Announced(Partition),
    Input(Partition, Cursor),
    Output(Partition, Option<Cursor>),
}

impl ViewLoading {
    /// Starts with the cursors.
    pub fn start(me: Incarnation, env: &mut Environment) -> Self {
        Self {
            call: env.call(me, Route::Process, ServerRequest::Cursors),
            step: Step::Cursors,
            view: FleetView::new(),
            next: BTreeMap::new(),
        }
    }

    /// Processes a reply and gives the next call; absent when the view is complete.
    pub fn take(
        &mut self,
        reply: Option<ServerReply>,
        env: &Environment,
    ) -> Result<Option<ServerRequest>, String> {
        let Some(reply) = reply else {
            return Err("a server does not answer".to_owned());
        };
        match (&self.step, reply) {
            (Step::Cursors, ServerReply::Cursors(recorded)) => {
                self.step = Step::Layout;
                Ok(Some(ServerRequest::EnsureLayout(recorded)))
            }
            (Step::Layout, ServerReply::LayoutReady) => Ok(self.rows(Partition::new(0), env)),
            (Step::Rows(partition), ServerReply::Rows(snapshot)) => {
                let partition = *partition;
                let cursor = snapshot.cursor.clone();
                self.view
                    .load(partition, *snapshot, &env.pinned)
                    .map_err(|error| error.to_string())?;
                match cursor {
                    Some(cursor) => {
                        self.step = Step::Input(partition, cursor);
                        Ok(Some(ServerRequest::Identity(LogId::Input(partition))))
                    }
                    None => {
                        self.step = Step::Announced(partition);
                        Ok(Some(ServerRequest::AnnouncedCheckpoints(partition)))
                    }
                }
            }
            (
                Step::Announced(partition),
                ServerReply::AnnouncedCheckpoints {
                    first_seq: first,
                    checkpoints: announced,
                },
            ) => {
                let partition = *partition;
                if first > 1 && !announced.is_empty() {
                    return Err(format!("the rows of {partition} are being restored"));
                }
                self.step = Step::Output(partition, None);
                Ok(Some(ServerRequest::Identity(LogId::Output(partition))))
            }
            (Step::Input(partition, cursor), ServerReply::Identity(identity)) => {
                if identity.created != cursor.stream_created {
                    return Err(format!("the input log of {partition} is another one"));
                }
                let partition = *partition;
                self.step = Step::Output(partition, Some(cursor.clone()));
                Ok(Some(ServerRequest::Identity(LogId::Output(partition))))
            }
            (Step::Output(partition, cursor), ServerReply::Identity(identity)) => {
                let partition = *partition;
                let next = match cursor {
                    Some(cursor) if identity.last_seq < cursor.out_seq => {
                        return Err(format!("the output log of {partition} lost its end"));
                    }
                    Some(cursor) => LogStart {
                        next: cursor.out_seq + 1,
                        origin: cursor.origin,
                    },
                    None => LogStart {
                        next: identity.first_seq,
                        origin: Origin::of_log(identity.first_seq),
                    },
                };
                self.next.insert(partition, next);
                Ok(self.rows(Partition::new(partition.number() + 1), env))
            }
            (_, reply) => Err(format!("{:?} was answered with {reply:?}", self.step)),
        }
    }

    fn rows(&mut self, partition: Partition, env: &Environment) -> Option<ServerRequest> {
        (partition.number() < env.shape.partitions).then(|| {
            self.step = Step::Rows(partition);
            ServerRequest::LoadRows(partition)
        })
    }
}
