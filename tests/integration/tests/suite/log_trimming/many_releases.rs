//! Many releases pass through logs that hold a few of them.

use super::running_agents;
use super::sampler::Sampler;
use super::testbed::{Limits, Testbed};
use super::three_wave_fleet::Channels;

const CHANNELS: Channels = &[("edge", 60)];
const RELEASES: usize = 40;
const LIMIT: u64 = 2 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn forty_releases_pass_through_logs_of_two_mebibytes() {
    let limits = Limits {
        input: LIMIT,
        output: LIMIT,
    };
    let mut testbed = Testbed::start("retention", CHANNELS, limits).await;
    let agents = testbed.start_agents(|_| false);
    testbed.publish(&commit(1)).await;
    testbed.wait_until_ready().await;
    let sampler = Sampler::start(testbed.targets());
    for number in 1..=RELEASES {
        let rollout_id = format!("edge@{}", commit(number));
        testbed.wait_until_state(&rollout_id, "Terminal").await;
        if number < RELEASES {
            testbed.publish(&commit(number + 1)).await;
        }
    }
    let agents = agents.stop().await;
    testbed.check_nothing_lost(&agents).await;
    testbed.verify().await;
    let observed = sampler.finish();

    assert_eq!(observed.not_ready, Vec::<String>::new());
    for (log, largest) in &observed.largest {
        assert!(*largest < LIMIT, "{log} had {largest} bytes");
    }
    // Several times the capacity of the logs passed through them.
    for log in [testbed.input_stream(), testbed.output_stream()] {
        let state = testbed.stream(&log);
        assert!(state.first_seq > 1, "{log} was not trimmed: {state:?}");
    }
    let events = u64::try_from(RELEASES * CHANNELS[0].1 * 8).unwrap();
    assert_eq!(running_agents::stored(&agents), events);
    testbed.stop();
}

fn commit(number: usize) -> String {
    format!("a{number:03}")
}
