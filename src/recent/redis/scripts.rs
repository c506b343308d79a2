use crate::redis::Script;

macro_rules! script {
    ($name:literal $(after $prefix:literal)?) => {
        Script::new(
            $name,
            concat!(
                $(include_str!(concat!("../", $prefix, ".lua")),)?
                include_str!("../common.lua"),
                include_str!(concat!("../", $name, ".lua"))
            ),
        )
    };
}

/// Scripts of the window. Every access to a window runs one of them.
#[derive(Clone, Debug)]
pub struct WindowScripts {
    pub(super) announce: Script,
    pub(super) publish: Script,
    pub(super) publish_replay: Script,
    pub(super) abort: Script,
    pub(super) newest: Script,
    pub(super) fill: Script,
    pub(super) drop: Script,
}

impl WindowScripts {
    /// Returns the scripts with `edit` applied to every source, so that a test can
    /// remove a guard and verify that it detects the consequence.
    #[must_use]
    pub fn with_edited_sources(&self, mut edit: impl FnMut(&str) -> String) -> Self {
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

impl Default for WindowScripts {
    fn default() -> Self {
        Self {
            announce: script!("announce" after "owner"),
            publish: script!("publish"),
            publish_replay: script!("publish_replay"),
            abort: script!("abort"),
            newest: script!("newest" after "owner"),
            fill: script!("fill"),
            drop: script!("drop"),
        }
    }
}
