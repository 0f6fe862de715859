//! Figures for Prometheus: a page of families in the OpenMetrics text format, and what counts.
//!
//! A page is made when somebody asks and holds what is so at that moment; what cannot be read then
//! was counted before, in a [`Counter`], some [`Words`] or a [`Histogram`]. Whoever fills a page
//! sees to it that labels are few: no family here grows with the number of hosts.
//!
//! This crate knows nothing of what is measured, and serves nothing.

mod counts;
mod page;

pub use counts::{Counter, Histogram, Words};
pub use page::{Family, Kind, Page, Unit};

/// The media type of a page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
