//! Switches and rollbacks, each after a check that does not ask the core.

use std::sync::Arc;

use nixfleet_proto::RolloutId;

use super::{Agent, AgentError, FinishedJob};
use crate::activation_guard::UnverifiedClosure;
use crate::activator::Activator;
use crate::admitted_closure::AdmittedClosure;
use crate::core::{Input, RollbackOutcome, SwitchOutcome};
use crate::journal_store::JournalStoreError;

/// Exit code of a switch that the guard refused: a command that cannot be executed.
const REFUSED: i32 = 126;

impl Agent {
    pub(super) fn switch(
        &mut self,
        rollout_id: RolloutId,
        closure: AdmittedClosure,
    ) -> Result<(), AgentError> {
        let target = closure.closure_hash().clone();
        if let Err(unverified) = self.guard.check_switch(&rollout_id, &target) {
            let outcome = SwitchOutcome::Failed {
                exit_code: REFUSED,
                stderr_tail: refused(&unverified),
            };
            self.start_activation(move |_| async move {
                Input::SwitchEnded {
                    rollout_id,
                    outcome,
                }
            });
            return Ok(());
        }
        if self
            .guard
            .observe_before(&rollout_id, &target, &self.running)
        {
            self.save_observations()?;
        }
        self.start_activation(move |activator| async move {
            let outcome = activator.switch(&target).await;
            Input::SwitchEnded {
                rollout_id,
                outcome,
            }
        });
        Ok(())
    }

    pub(super) fn roll_back(&self, rollout_id: RolloutId, closure: AdmittedClosure) {
        let target = closure.closure_hash().clone();
        let checked = self.guard.check_rollback(&rollout_id, &target);
        self.start_activation(move |activator| async move {
            let outcome = match checked {
                Ok(()) => activator.roll_back(&target).await,
                Err(unverified) => RollbackOutcome::Failed {
                    message: refused(&unverified),
                },
            };
            Input::RollbackEnded {
                rollout_id,
                outcome,
            }
        });
    }

    pub(super) fn save_observations(&self) -> Result<(), JournalStoreError> {
        let observations = self.guard.observations();
        self.parts.journals.save_observations(observations)
    }

    fn start_activation<F>(&self, job: impl FnOnce(Arc<dyn Activator>) -> F)
    where
        F: Future<Output = Input> + Send + 'static,
    {
        let activator = Arc::clone(&self.parts.activator);
        let work = job(Arc::clone(&activator));
        self.jobs.push(Box::pin(async move {
            let input = Box::new(work.await);
            FinishedJob::Observed(input, activator.current_closure().await)
        }));
    }
}

fn refused(unverified: &UnverifiedClosure) -> String {
    tracing::error!(rollout = %unverified.rollout_id, closure = %unverified.closure, "refused to activate a closure");
    unverified.to_string()
}
