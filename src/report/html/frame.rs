//! What every page begins and ends with: its policy, which lets it fetch and run nothing, and its
//! style.

use crate::report::html::markup::shown;

/// The end of a page.
pub const END: &str = "</main></body></html>\n";

/// The beginning of a page about `title`, which is anybody's.
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
