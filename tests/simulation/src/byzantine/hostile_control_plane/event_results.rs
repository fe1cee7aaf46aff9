//! Results of reported events, whether or not anything was kept of them.

use nixfleet_agent::core::DeliveryResult;
use nixfleet_proto::wire::EventRequest;

use super::HostileControlPlane;
use crate::byzantine::answer::{Answer, EventResults};
use crate::byzantine::coverage::Lie;
use crate::byzantine::genuine_releases::Moment;

impl HostileControlPlane {
    /// Answers a request with events.
    pub fn events(&mut self, requests: &[EventRequest], at: Moment<'_>) -> Answer<EventResults> {
        let lies = self.lies();
        // A liar may keep what it refuses, and drop what it acknowledges.
        if !lies || self.rng.chance(300) {
            self.note_events(requests, at);
        }
        let one_by_one = self.rng.chance(500);
        let mut result = self.result(lies);
        let results = requests.iter().map(|_| {
            if one_by_one {
                result = self.result(lies);
            }
            result.clone()
        });
        let results = results.collect();
        self.answer(results)
    }

    fn result(&mut self, lies: bool) -> DeliveryResult {
        if !lies {
            return DeliveryResult::Delivered;
        }
        match self.rng.below(6) {
            0 => {
                self.tell(Lie::EventRefused);
                DeliveryResult::Refused {
                    status: *self.rng.pick(&[400, 404, 409, 413, 499]),
                    code: "no".to_owned(),
                    message: "no".to_owned(),
                }
            }
            1 => {
                self.tell(Lie::BatchRefused);
                DeliveryResult::BatchRefused
            }
            2 | 3 => {
                self.tell(Lie::EventUnavailable);
                DeliveryResult::Unavailable {
                    message: String::new(),
                }
            }
            _ => DeliveryResult::Delivered,
        }
    }
}
