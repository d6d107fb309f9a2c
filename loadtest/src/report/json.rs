//! A report as JSON, which `report.schema.json` describes.

use std::path::Path;

use super::{Report, SCHEMA};

/// As text.
pub fn write(report: &Report) -> Result<String, String> {
    serde_json::to_string(report).map_err(|error| error.to_string())
}

/// From a file.
pub fn read(path: &Path) -> Result<Report, String> {
    let wrong = |why: String| format!("{}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let report: Report = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if report.schema != SCHEMA {
        return Err(wrong(format!("it is a report of \"{}\", not of {SCHEMA}", report.schema)));
    }
    Ok(report)
}

/// Histograms as HdrHistogram V2, deflated, in base64.
pub mod histogram {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hdrhistogram::serialization::{
        Deserializer as Reader, Serializer as _, V2DeflateSerializer,
    };
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::measured::Times;

    /// To text.
    pub fn serialize<S: Serializer>(times: &Times, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(times, &mut bytes)
            .map_err(|error| S::Error::custom(format!("{error:?}")))?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    /// From text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Times, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        let read: Times = Reader::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| D::Error::custom(format!("{error:?}")))?;
        if read.sigfig() != crate::measured::DIGITS {
            return Err(D::Error::custom("a histogram has other digits"));
        }
        let mut times = crate::measured::times();
        times.add(read).map_err(D::Error::custom)?;
        Ok(times)
    }
}
