//! Where the coordinator sends traces: the variables of OpenTelemetry, and options for those who would rather type them.

use andon_coordinator::TracesConfig;
use clap::Args;
use percent_encoding::percent_decode_str;

use super::error::CliError;

/// Where OTLP over HTTP takes traces below a collector's address.
const TRACES_PATH: &str = "/v1/traces";
/// The only form of OTLP that is spoken.
const PROTOCOL: &str = "http/protobuf";
/// What a collector calls a farm that nobody has named.
const SERVICE_NAME: &str = "andon";

/// Traces of runs to a collector of OpenTelemetry.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Traces")]
pub(crate) struct TracesArgs {
    /// Send a trace of each run to this collector of OpenTelemetry: OTLP over HTTP, below /v1/traces
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    otlp_endpoint: Option<String>,
    /// The same, to exactly this address
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", hide_env_values = true)]
    otlp_traces_endpoint: Option<String>,
    /// What is shown to the collector: name=value,…, values percent-encoded. Better given in the environment: others can read
    /// arguments
    #[arg(long, value_name = "LIST", env = "OTEL_EXPORTER_OTLP_HEADERS", hide_env_values = true)]
    otlp_headers: Option<String>,
    /// Of the environment alone: the same, of traces.
    #[arg(long, hide = true, env = "OTEL_EXPORTER_OTLP_TRACES_HEADERS", hide_env_values = true)]
    otlp_traces_headers: Option<String>,
    /// What the collector calls this farm [default: andon]
    #[arg(long, value_name = "NAME", env = "OTEL_SERVICE_NAME")]
    otlp_service_name: Option<String>,
    /// Of the environment alone: says that somebody means another form of OTLP.
    #[arg(long, hide = true, env = "OTEL_EXPORTER_OTLP_PROTOCOL")]
    otlp_protocol: Option<String>,
    /// The same, of traces.
    #[arg(long, hide = true, env = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")]
    otlp_traces_protocol: Option<String>,
}

impl TracesArgs {
    /// What is told, where that can be meant; `None` where nobody asks for traces. An empty variable is none, and what is said of traces
    /// goes before what is said of everything.
    pub(crate) fn checked(&self) -> Result<Option<TracesConfig>, CliError> {
        let given = |value: &Option<String>| value.clone().filter(|value| !value.trim().is_empty());
        let below = |url: String| format!("{}{TRACES_PATH}", url.trim_end_matches('/'));
        let exactly = given(&self.otlp_traces_endpoint);
        let Some(endpoint) = exactly.or_else(|| given(&self.otlp_endpoint).map(below)) else {
            return Ok(None);
        };
        let protocol = given(&self.otlp_traces_protocol).or_else(|| given(&self.otlp_protocol));
        if let Some(protocol) = protocol.filter(|protocol| protocol != PROTOCOL) {
            return Err(CliError::usage(format!(
                "traces are sent as {PROTOCOL}; OTEL_EXPORTER_OTLP_PROTOCOL asks for {protocol:?}"
            )));
        }
        let list = given(&self.otlp_traces_headers).or_else(|| given(&self.otlp_headers));
        let headers = headers(&list.unwrap_or_default())?;
        let service_name = given(&self.otlp_service_name).unwrap_or_else(|| SERVICE_NAME.to_owned());
        Ok(Some(TracesConfig { endpoint, headers, service_name }))
    }
}

/// `name=value,name=value`, as W3C's baggage writes it.
fn headers(list: &str) -> Result<Vec<(String, String)>, CliError> {
    let pair = |pair: &str| {
        // Values are secrets: what is wrong is named by its place.
        let bad = |what: &str| CliError::usage(format!("OTEL_EXPORTER_OTLP_HEADERS: {what}"));
        let (name, value) = pair.split_once('=').ok_or_else(|| bad("name=value,… is expected"))?;
        let value =
            percent_decode_str(value.trim()).decode_utf8().map_err(|_| bad("a value is not UTF-8"))?;
        Ok((name.trim().to_owned(), value.into_owned()))
    };
    list.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_address_wins_and_the_other_one_is_a_beginning() {
        assert_eq!(TracesArgs::default().checked().expect("nothing is asked"), None);
        let all = TracesArgs { otlp_endpoint: Some("http://c:4318/".into()), ..TracesArgs::default() };
        let endpoint = |args: &TracesArgs| args.checked().expect("right").expect("asked for").endpoint;
        assert_eq!(endpoint(&all), "http://c:4318/v1/traces");
        let exactly = TracesArgs { otlp_traces_endpoint: Some("http://d/x".into()), ..all };
        assert_eq!(endpoint(&exactly), "http://d/x");
        assert_eq!(exactly.checked().expect("right").expect("asked for").service_name, "andon");
        let empty = TracesArgs { otlp_endpoint: Some(" ".into()), ..TracesArgs::default() };
        assert_eq!(empty.checked().expect("an empty variable is none"), None);
    }

    #[test]
    fn headers_are_pairs_and_other_protocols_are_refused() {
        let of = |headers: &str| TracesArgs {
            otlp_endpoint: Some("http://c".into()),
            otlp_headers: Some(headers.into()),
            ..TracesArgs::default()
        };
        let right = of("api-key=a%20b%2Cc, x-team = forge ,").checked().expect("right").expect("asked for");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(right.headers, [pair("api-key", "a b,c"), pair("x-team", "forge")]);
        let wrong = of("secret-without-a-name").checked().expect_err("no pair");
        assert!(!format!("{wrong:?}").contains("secret-without"), "{wrong:?}");
        let own = TracesArgs { otlp_traces_headers: Some("a=b".into()), ..of("c=d") };
        assert_eq!(own.checked().expect("right").expect("asked for").headers, [pair("a", "b")]);
        let grpc = TracesArgs { otlp_protocol: Some("grpc".into()), ..of("") };
        assert!(grpc.checked().is_err());
    }
}
