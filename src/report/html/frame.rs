//! The beginning and the end of every page, with its style and its content security policy,
//! which forbids all requests and scripts.

use crate::report::html::markup::shown;

/// The end of a page.
pub const END: &str = "</main></body></html>\n";

/// Returns the beginning of a page about `title`, which may hold any characters.
pub fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0} – acb-fuse</title>\n<style>\n{1}</style></head>\n<body><main>\n<h1>{0}</h1>\n",
        shown(title),
        include_str!("style.css")
    )
}
