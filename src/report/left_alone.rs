//! Places that were left alone, and what helps.
//!
//! Knows reasons and the caller's options; does not know the plan.

use std::borrow::Cow;

use serde::Serialize;

use crate::refusal::{NearMiss, Subject, help};
use crate::report::json;
use crate::setting::{Setting, told};

/// A place that was left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LeftAlone {
    /// The node where the branches meet, or the block.
    pub node: String,
    /// The kind of the reason, as a word that programs may rely on.
    pub kind: &'static str,
    /// The reason, as a sentence.
    pub reason: String,
    /// What helps, as a sentence.
    pub help: Cow<'static, str>,
    /// The caller's option that the reason names.
    #[serde(skip)]
    pub setting: Option<Setting>,
    /// The option that helps.
    #[serde(skip)]
    pub(crate) option: Option<&'static str>,
    /// What kind of place is left alone.
    #[serde(skip)]
    pub(crate) subject: Subject,
    /// The reason without what is particular to one place, so that it describes several places.
    #[serde(skip)]
    pub(crate) in_common: String,
}

impl LeftAlone {
    /// Creates the entry of a near miss.
    pub(crate) fn of(NearMiss { subject, node, reason }: &NearMiss) -> Self {
        LeftAlone {
            node: node.clone(),
            kind: json::kind(reason),
            reason: reason.to_string(),
            help: help::help(reason).into(),
            setting: reason.setting(),
            option: help::option(help::help(reason)),
            subject: *subject,
            in_common: reason.in_common(),
        }
    }

    /// Whether something helps.
    pub(crate) fn is_helped(&self) -> bool {
        !self.help.is_empty() && !self.help.starts_with(help::NOTHING)
    }

    /// Whether fixing sizes helps.
    pub(crate) fn is_helped_by_sizes(&self) -> bool {
        self.option == Some(help::SIZES)
    }

    /// Puts the caller's own words in the place of the options that the messages name.
    pub(crate) fn put_settings_in(&mut self, words: &dyn Fn(&Setting) -> String) {
        if let Some(setting) = &self.setting {
            self.reason = told(&self.reason, setting, words);
            self.in_common = told(&self.in_common, setting, words);
        }
        if let Some(option) = self.option {
            self.help = told(&self.help, &Setting::Option(option), words).into();
        }
    }
}
