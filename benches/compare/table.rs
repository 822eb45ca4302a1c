//! What was measured, as lines of a table.

use std::fmt;

/// What a figure has to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Shown beside others, with nothing to reach.
    None,
}

impl Target {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Target::AtLeast(least) => Some(value >= least),
            Target::AtMost(most) => Some(value <= most),
            Target::None => None,
        }
    }
}

/// One measured figure: the node's values, and those that they are compared with, in turns.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) node: Vec<f64>,
    /// Nothing if the node's own value is what counts.
    pub(crate) limit: Vec<f64>,
    pub(crate) target: Target,
    /// What was seen beside it.
    pub(crate) seen: String,
}

impl Figure {
    pub(crate) fn alone(what: &str, unit: &'static str, node: Vec<f64>, target: Target) -> Figure {
        Figure { what: what.to_owned(), unit, node, limit: Vec::new(), target, seen: String::new() }
    }

    pub(crate) fn seeing(self, seen: impl Into<String>) -> Figure {
        Figure { seen: seen.into(), ..self }
    }

    /// What is compared with the target, turn by turn.
    fn compared(&self) -> Vec<f64> {
        match self.limit.as_slice() {
            [] => self.node.clone(),
            limit => self.node.iter().zip(limit).map(|(node, limit)| node / limit).collect(),
        }
    }
}

/// The median, the least and the most.
pub(crate) fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.as_slice() {
        [] => (f64::NAN, f64::NAN, f64::NAN),
        [least, .., most] => (sorted[sorted.len() / 2], *least, *most),
        [only] => (*only, *only, *only),
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, ..) = spread(&self.node);
        write!(f, "| {} | {} {}", self.what, short(node), self.unit)?;
        if self.limit.is_empty() {
            write!(f, " | | ")?;
        } else {
            let (limit, ..) = spread(&self.limit);
            write!(f, " | {} {} | ", short(limit), self.unit)?;
        }
        let (middle, least, most) = spread(&self.compared());
        if !self.limit.is_empty() {
            write!(f, "{}", short(middle))?;
        }
        if self.node.len() > 1 {
            write!(f, " ({} to {})", short(least), short(most))?;
        }
        let target = match self.target {
            Target::AtLeast(least) => format!(">= {}", short(least)),
            Target::AtMost(most) => format!("<= {}", short(most)),
            Target::None => String::new(),
        };
        let met = match self.target.is_met(middle) {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        write!(f, " | {target} | {met} | {} |", self.seen)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    figures: Vec<Figure>,
}

impl Table {
    pub(crate) fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | node | compared with | ratio, or value (spread) | target | met | beside it |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        self.figures.iter().try_for_each(|figure| writeln!(f, "{figure}"))
    }
}
