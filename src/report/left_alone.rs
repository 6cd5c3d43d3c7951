//! A place that was left alone, and what helps.
//!
//! Knows reasons and the caller's choices; not what was planned.

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
    /// The kind of the reason, in a word that programs may rely on.
    pub kind: &'static str,
    /// The reason.
    pub reason: String,
    /// What helps.
    pub help: Cow<'static, str>,
    /// The choice of the caller that the reason names.
    #[serde(skip)]
    pub setting: Option<Setting>,
    /// The option that helps.
    #[serde(skip)]
    pub(crate) option: Option<&'static str>,
    /// What is left alone.
    #[serde(skip)]
    pub(crate) subject: Subject,
    /// What the reason says of several places at once.
    #[serde(skip)]
    pub(crate) in_common: String,
}

impl LeftAlone {
    /// What was missed by little.
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

    /// Whether that is to fix sizes.
    pub(crate) fn is_helped_by_sizes(&self) -> bool {
        self.option == Some(help::SIZES)
    }

    /// Puts the choices of the caller that it names in words of the caller's own.
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
