//! Results of reported events, whether or not anything was kept of them.

use nixfleet_agent::core::DeliveryResult;
use nixfleet_proto::wire::EventRequest;

use super::HostileControlPlane;
use crate::byzantine::answer::{Answer, EventResults};
use crate::byzantine::coverage::Falsehood;
use crate::byzantine::genuine_releases::AnswerContext;

impl HostileControlPlane {
    /// Answers a request with events.
    pub fn events(
        &mut self,
        requests: &[EventRequest],
        at: AnswerContext<'_>,
    ) -> Answer<EventResults> {
        let is_false = self.is_false();
        // A liar may keep what it refuses, and drop what it acknowledges.
        if !is_false || self.rng.chance(300) {
            self.note_events(requests, at);
        }
        let one_by_one = self.rng.chance(500);
        let mut result = self.result(is_false);
        let results = requests.iter().map(|_| {
            if one_by_one {
                result = self.result(is_false);
            }
            result.clone()
        });
        let results = results.collect();
        self.answer(results)
    }

    fn result(&mut self, is_false: bool) -> DeliveryResult {
        if !is_false {
            return DeliveryResult::Delivered;
        }
        match self.rng.below(6) {
            0 => {
                self.tell(Falsehood::EventRefused);
                DeliveryResult::Refused {
                    status: *self.rng.pick(&[400, 404, 409, 413, 499]),
                    code: "no".to_owned(),
                    message: "no".to_owned(),
                }
            }
            1 => {
                self.tell(Falsehood::BatchRefused);
                DeliveryResult::BatchRefused
            }
            2 | 3 => {
                self.tell(Falsehood::EventUnavailable);
                DeliveryResult::Unavailable {
                    message: String::new(),
                }
            }
            _ => DeliveryResult::Delivered,
        }
    }
}
