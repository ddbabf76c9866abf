//! YAML text as a tree of nodes, each with its place: text as written, no guessing of types.
//!
//! Scalars stay text (`no`, `1.10` and `0755` are what they look like); whoever reads one says what it must be.
//! Aliases and merge keys are resolved here, within budgets, so that an alias bomb ends early. Tags, second
//! documents, duplicate keys and keys that are not text are refused. Building is iterative; only the size-bounded
//! resolution of aliases copies.

use std::collections::HashMap;
use std::rc::Rc;

use serde_saphyr::granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Span};

use super::super::problem::{Findings, Place, quoted};

/// The most nodes of a document, those reached through aliases counted each time.
const NODES_MAX: usize = 20_000;
/// The most text that aliases repeat, in bytes: it stands in the file once, and readers copy it each time.
const REPEATED_BYTES_MAX: usize = 4 << 20;
/// The most keys of one map.
const MAP_ENTRIES_MAX: usize = 500;
/// The deepest nesting.
const DEPTH_MAX: usize = 32;

/// A node and where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
    /// Nodes at and below this one.
    size: usize,
    /// Bytes of text at and below this one.
    text: usize,
    depth: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Scalar(String),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// One entry of a map, in the order of the text.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: Rc<Node>,
}

impl Entry {
    fn text(&self) -> usize {
        self.key.len() + self.value.text
    }
}

impl Node {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

enum Frame {
    List {
        place: Place,
        anchor: usize,
        items: Vec<Rc<Node>>,
    },
    Map {
        place: Place,
        anchor: usize,
        entries: Vec<Entry>,
        key: Option<(String, Place)>,
        merges: Vec<Rc<Node>>,
    },
}

struct Builder<'f, 'a> {
    findings: &'f mut Findings<'a>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    nodes: usize,
    repeated: usize,
}

/// The building cannot go on; the problem is recorded.
struct Stop;

/// The document's tree; `None` where the text is no document of ours, with the problem recorded.
pub(crate) fn parse(findings: &mut Findings<'_>, text: &str) -> Option<Rc<Node>> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder =
        Builder { findings, stack: Vec::new(), anchors: HashMap::new(), root: None, nodes: 0, repeated: 0 };
    for event in parser {
        match event {
            Ok((event, span)) => builder.event(event, span).ok()?,
            Err(error) => {
                let place = builder.place(error.marker());
                let message = error.to_string();
                // The marker is in the place already.
                let message = message.split(" at ").next().unwrap_or(&message).replace('\n', ", ");
                builder.findings.problem(place, message);
                return None;
            }
        }
    }
    builder.root
}

impl Builder<'_, '_> {
    fn place(&self, marker: &Marker) -> Place {
        self.findings.at(marker.line().max(1), marker.col() + 1)
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let place = self.place(&span.start);
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                self.stop(place, "a second document: a compose file is one")
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.core_tag(&place, tag.as_deref().map(|tag| (tag.is_custom(), tag.original())));
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let bytes = text.len();
                let value = if null { Value::Null } else { Value::Scalar(text.into_owned()) };
                self.node(Node { place, value, size: 1, text: bytes, depth: 1 }, anchor)
            }
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                // An alias costs all that it stands for, since readers walk it each time.
                Some(node) => {
                    let cost = node.size;
                    self.repeat(&place, node.text)?;
                    self.attach(node, place, cost)
                }
                None => self.stop(place, "an alias within the node that it names"),
            },
            Event::SequenceStart(_, anchor, tag) => {
                self.core_tag(&place, tag.as_deref().map(|tag| (tag.is_custom(), tag.original())));
                self.stack.push(Frame::List { place, anchor, items: Vec::new() });
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                self.core_tag(&place, tag.as_deref().map(|tag| (tag.is_custom(), tag.original())));
                let (entries, merges) = (Vec::new(), Vec::new());
                self.stack.push(Frame::Map { place, anchor, entries, key: None, merges });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Ok(()),
        }
    }

    fn stop(&mut self, place: Place, message: impl Into<String>) -> Result<(), Stop> {
        self.findings.problem(place, message);
        Err(Stop)
    }

    /// Tags of YAML's own core schema say nothing that is not visible; others would change the meaning.
    fn core_tag(&mut self, place: &Place, tag: Option<(bool, String)>) {
        if let Some((true, tag)) = tag {
            self.findings.problem(place.clone(), format!("tag {} is not supported", quoted(&tag)));
        }
    }

    fn close(&mut self) -> Result<(), Stop> {
        match self.stack.pop() {
            Some(Frame::List { place, anchor, items }) => {
                let size = 1 + items.iter().map(|item| item.size).sum::<usize>();
                let text = items.iter().map(|item| item.text).sum();
                let depth = 1 + items.iter().map(|item| item.depth).max().unwrap_or(0);
                self.node(Node { place, value: Value::List(items), size, text, depth }, anchor)
            }
            Some(Frame::Map { place, anchor, mut entries, merges, .. }) => {
                for merge in merges {
                    self.merge(&mut entries, &merge)?;
                }
                let size = 1 + entries.iter().map(|entry| 1 + entry.value.size).sum::<usize>();
                let text = entries.iter().map(Entry::text).sum();
                let depth = 1 + entries.iter().map(|entry| entry.value.depth).max().unwrap_or(0);
                self.node(Node { place, value: Value::Map(entries), size, text, depth }, anchor)
            }
            None => Ok(()),
        }
    }

    fn node(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        let place = node.place.clone();
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node, place, 1)
    }

    fn spend(&mut self, place: &Place, nodes: usize) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values, those behind aliases included");
            return self.stop(place.clone(), message);
        }
        Ok(())
    }

    fn repeat(&mut self, place: &Place, bytes: usize) -> Result<(), Stop> {
        self.repeated = self.repeated.saturating_add(bytes);
        if self.repeated > REPEATED_BYTES_MAX {
            let message = format!("aliases that repeat more than {REPEATED_BYTES_MAX} bytes of text");
            return self.stop(place.clone(), message);
        }
        Ok(())
    }

    fn attach(&mut self, node: Rc<Node>, place: Place, cost: usize) -> Result<(), Stop> {
        self.spend(&place, cost)?;
        if node.depth + self.stack.len() > DEPTH_MAX {
            return self.stop(place, format!("nested deeper than {DEPTH_MAX}"));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match frame {
            Frame::List { items, .. } => items.push(node),
            Frame::Map { entries, key: slot, merges, .. } => match slot.take() {
                None => match &node.value {
                    Value::Scalar(text) => *slot = Some((text.clone(), place)),
                    _ => return self.stop(place, "a key that is not a text"),
                },
                Some((key, _)) if key == "<<" => merges.push(node),
                Some((key, place)) => {
                    if entries.len() >= MAP_ENTRIES_MAX {
                        return self.stop(place, format!("a map with more than {MAP_ENTRIES_MAX} keys"));
                    }
                    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                        let message = format!("{} is on line {} already", quoted(&key), first.place.line);
                        self.findings.problem(place, message);
                    } else {
                        entries.push(Entry { key, place, value: node });
                    }
                }
            },
        }
        Ok(())
    }

    /// `<<: *defaults` or `<<: [*a, *b]`: entries that are not there yet.
    fn merge(&mut self, entries: &mut Vec<Entry>, from: &Rc<Node>) -> Result<(), Stop> {
        let sources: Vec<&Rc<Node>> = match &from.value {
            Value::List(items) => items.iter().collect(),
            _ => vec![from],
        };
        for source in sources {
            let Value::Map(more) = &source.value else {
                self.findings.problem(source.place.clone(), "\"<<\" merges maps only");
                continue;
            };
            for entry in more {
                if !entries.iter().any(|known| known.key == entry.key) {
                    self.spend(&entry.place, 1 + entry.value.size)?;
                    self.repeat(&entry.place, entry.text())?;
                    entries.push(entry.clone());
                }
            }
        }
        Ok(())
    }
}
