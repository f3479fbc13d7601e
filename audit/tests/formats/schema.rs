//! Checks a value against the facts in `tests/ocsf/schema-1.8.0.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What the published schema says about the classes and objects that the export uses.
#[derive(Debug, Deserialize)]
pub(crate) struct Schema {
    pub(crate) version: String,
    classes: BTreeMap<String, Class>,
    objects: BTreeMap<String, Object>,
}

#[derive(Debug, Deserialize)]
struct Class {
    name: String,
    category_uid: u64,
    category_name: String,
    attributes: BTreeMap<String, Attribute>,
}

#[derive(Debug, Deserialize)]
struct Object {
    attributes: BTreeMap<String, Attribute>,
    #[serde(default)]
    at_least_one: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Attribute {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    array: bool,
    #[serde(default)]
    required: bool,
    #[serde(rename = "enum", default)]
    values: BTreeMap<u64, String>,
}

impl Schema {
    pub(crate) fn load() -> Self {
        serde_json::from_str(include_str!("../ocsf/schema-1.8.0.json")).unwrap()
    }

    /// Everything that is wrong with `event`; empty if nothing is.
    pub(crate) fn faults(&self, event: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        let Some(class) = self.classes.get(&event["class_uid"].to_string()) else {
            return vec![format!("no class {}", event["class_uid"])];
        };
        self.members("event", &class.attributes, event, &mut faults);
        let type_uid =
            event["class_uid"].as_u64().unwrap() * 100 + event["activity_id"].as_u64().unwrap_or(0);
        let expected = [
            ("type_uid", Value::from(type_uid)),
            ("category_uid", class.category_uid.into()),
            ("category_name", class.category_name.as_str().into()),
            ("class_name", class.name.as_str().into()),
        ];
        for (name, value) in expected {
            if event[name] != value {
                faults.push(format!("{name} is {} and not {value}", event[name]));
            }
        }
        faults
    }

    fn members(
        &self,
        path: &str,
        attributes: &BTreeMap<String, Attribute>,
        value: &Value,
        faults: &mut Vec<String>,
    ) {
        let Some(members) = value.as_object() else {
            faults.push(format!("{path} is no object"));
            return;
        };
        for (name, attribute) in attributes {
            if attribute.required && !members.contains_key(name) {
                faults.push(format!("{path}.{name} is missing"));
            }
        }
        for (name, value) in members {
            let path = format!("{path}.{name}");
            let Some(attribute) = attributes.get(name) else {
                faults.push(format!("{path} is not in the schema"));
                continue;
            };
            let values = match (attribute.array, value.as_array()) {
                (true, Some(list)) => list.iter().collect(),
                (true, None) => {
                    faults.push(format!("{path} is no array"));
                    continue;
                }
                (false, _) => vec![value],
            };
            for value in values {
                self.value(&path, attribute, value, faults);
            }
            self.caption(&path, name, attributes, members, faults);
        }
    }

    fn value(&self, path: &str, attribute: &Attribute, value: &Value, faults: &mut Vec<String>) {
        let fits = match attribute.kind.as_str() {
            "integer_t" | "long_t" | "timestamp_t" => value.is_i64() || value.is_u64(),
            "port_t" => value.as_u64().is_some_and(|port| port <= 65_535),
            "ip_t" => value
                .as_str()
                .is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_ok()),
            "string_t" | "username_t" | "resource_uid_t" => value.is_string(),
            "json_t" => true,
            "object" => value.is_object(),
            object => match self.objects.get(object) {
                None => panic!("the facts have no {object}"),
                Some(object) => {
                    self.members(path, &object.attributes, value, faults);
                    let one = &object.at_least_one;
                    one.is_empty() || one.iter().any(|name| value.get(name).is_some())
                }
            },
        };
        let known = attribute.values.is_empty()
            || value
                .as_u64()
                .is_some_and(|value| attribute.values.contains_key(&value));
        if !fits || !known {
            faults.push(format!("{path} cannot be {value}"));
        }
    }

    /// A name beside an id is the caption of the id's value, unless the id is 99, which stands for a name of the source.
    fn caption(
        &self,
        path: &str,
        name: &str,
        attributes: &BTreeMap<String, Attribute>,
        members: &serde_json::Map<String, Value>,
        faults: &mut Vec<String>,
    ) {
        let sibling = match name.strip_suffix("_id") {
            Some("activity") => "activity_name",
            Some(other) => other,
            None => return,
        };
        let id = members[name].as_u64().unwrap_or(99);
        let caption = attributes.get(name).and_then(|id_of| id_of.values.get(&id));
        let (Some(caption), Some(have)) = (caption, members.get(sibling)) else {
            return;
        };
        if id != 99 && have != caption {
            faults.push(format!("{path} is {id}, which is {caption} and not {have}"));
        }
    }
}
