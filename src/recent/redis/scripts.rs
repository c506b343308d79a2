use crate::redis::Script;

macro_rules! script {
    ($name:literal) => {
        Script::new(
            $name,
            concat!(
                include_str!("../common.lua"),
                include_str!(concat!("../", $name, ".lua"))
            ),
        )
    };
}

/// The scripts that every access to a window is one of.
#[derive(Clone, Debug)]
pub struct Scripts {
    pub(super) announce: Script,
    pub(super) publish: Script,
    pub(super) publish_replay: Script,
    pub(super) abort: Script,
    pub(super) newest: Script,
    pub(super) fill: Script,
    pub(super) drop: Script,
}

impl Scripts {
    /// The scripts with every source changed, so that a test can take out what
    /// makes them safe and see that it notices.
    #[must_use]
    pub fn edited(&self, mut edit: impl FnMut(&str) -> String) -> Self {
        let mut edited = |script: &Script| Script::new(script.name(), edit(script.source()));
        Self {
            announce: edited(&self.announce),
            publish: edited(&self.publish),
            publish_replay: edited(&self.publish_replay),
            abort: edited(&self.abort),
            newest: edited(&self.newest),
            fill: edited(&self.fill),
            drop: edited(&self.drop),
        }
    }
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            announce: script!("announce"),
            publish: script!("publish"),
            publish_replay: script!("publish_replay"),
            abort: script!("abort"),
            newest: script!("newest"),
            fill: script!("fill"),
            drop: script!("drop"),
        }
    }
}
