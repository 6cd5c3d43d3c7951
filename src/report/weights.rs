//! Serialization of the magnitudes of a kernel's weights, with the names of `schema.json`: the
//! algebra itself knows no format.

use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use crate::affine::{Comparison, Int8Weights, Magnitude, Spread};

/// Writes the weights of each convolution, before and after; null if there are none.
pub fn serialize<S: Serializer>(
    weights: &Option<Vec<Comparison>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let Some(all) = weights else { return to.serialize_none() };
    let mut list = to.serialize_seq(Some(all.len()))?;
    all.iter().try_for_each(|one| list.serialize_element(&ComparisonFields::of(one)))?;
    list.end()
}

#[derive(Serialize)]
struct ComparisonFields<'c> {
    stored: SpreadFields,
    before: MagnitudeFields<'c>,
    after: MagnitudeFields<'c>,
    dominant: Option<DominantFields<'c>>,
}

#[derive(Serialize)]
struct DominantFields<'c> {
    kernel: Option<&'c [i64]>,
    filters: usize,
    all: usize,
}

#[derive(Serialize)]
struct MagnitudeFields<'c> {
    kernel: &'c [usize],
    by_position: &'c [f64],
    channels: SpreadFields,
    int8: Int8Fields,
}

#[derive(Serialize)]
struct Int8Fields {
    sqnr_per_tensor: Option<f64>,
    sqnr_per_channel: Option<f64>,
    crest_factor: Option<f64>,
}

#[derive(Serialize)]
struct SpreadFields {
    smallest: f64,
    lower_quartile: f64,
    median: f64,
    upper_quartile: f64,
    largest: f64,
    ratio: Option<f64>,
}

impl<'c> ComparisonFields<'c> {
    fn of(Comparison { stored, before, after, dominant }: &'c Comparison) -> Self {
        ComparisonFields {
            stored: SpreadFields::of(stored),
            before: MagnitudeFields::of(before),
            after: MagnitudeFields::of(after),
            dominant: dominant.as_ref().map(|branch| DominantFields {
                kernel: branch.kernel.as_deref(),
                filters: branch.filters,
                all: branch.all,
            }),
        }
    }
}

impl<'c> MagnitudeFields<'c> {
    fn of(Magnitude { kernel, by_position, channels, int8 }: &'c Magnitude) -> Self {
        let Int8Weights { sqnr_per_tensor, sqnr_per_channel, crest_factor } = *int8;
        let int8 = Int8Fields { sqnr_per_tensor, sqnr_per_channel, crest_factor };
        MagnitudeFields { kernel, by_position, channels: SpreadFields::of(channels), int8 }
    }
}

impl SpreadFields {
    fn of(spread: &Spread) -> Self {
        let Spread { smallest, lower_quartile, median, upper_quartile, largest, ratio } = *spread;
        SpreadFields { smallest, lower_quartile, median, upper_quartile, largest, ratio }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affine::DominantBranch;

    #[test]
    fn names_stand_in_their_order() {
        let channels =
            Spread { smallest: 1.0, largest: 2.5, ratio: Some(2.0), ..Spread::default() };
        let int8 = Int8Weights::default();
        let known = Int8Weights { sqnr_per_tensor: Some(30.5), ..int8 };
        let by_position = vec![1.0, 0.5];
        let before = Magnitude { kernel: vec![1, 2], by_position, channels, int8: known };
        let (kernel, by_position, channels) = (vec![], vec![], Spread::default());
        let after = Magnitude { kernel, by_position, channels, int8 };
        let dominant = Some(DominantBranch { kernel: None, filters: 2, all: 3 });
        let stored = before.channels;
        let all = Some(vec![Comparison { stored, before, after, dominant }]);
        let json = |weights| {
            let mut bytes = Vec::new();
            serialize(weights, &mut serde_json::Serializer::new(&mut bytes)).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let spread = r#"{"smallest":1.0,"lower_quartile":0.0,"median":0.0,"upper_quartile":0.0,"largest":2.5,"ratio":2.0}"#;
        let none = spread.replace("1.0", "0.0").replace("2.5", "0.0").replace(":2.0", ":null");
        let known = r#"{"sqnr_per_tensor":30.5,"sqnr_per_channel":null,"crest_factor":null}"#;
        let unknown = known.replace("30.5", "null");
        let expected = format!(
            r#"[{{"stored":{spread},"before":{{"kernel":[1,2],"by_position":[1.0,0.5],"channels":{spread},"int8":{known}}},"after":{{"kernel":[],"by_position":[],"channels":{none},"int8":{unknown}}},"dominant":{{"kernel":null,"filters":2,"all":3}}}}]"#
        );
        assert_eq!(json(&all), expected);
        assert_eq!(json(&None), "null");
    }
}
