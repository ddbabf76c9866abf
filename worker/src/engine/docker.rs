//! [`Engine`] over a real daemon. Each method is one API call (or the few that belong together) with its limit; shapes
//! are converted in `convert.rs`, errors are sorted in `client.rs`.

use std::time::Duration;

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::errors::Error as ClientError;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    EndpointSettings, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters as query;
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;

use super::client::{DockerEngine, check_name, classify};
use super::error::{BuildError, BuildFailure, EngineError};
use super::output::{HeadTail, OutputSink, OutputStream};
use super::types::{
    AttachSpec, Attached, BuildSpec, ByteStream, ContainerSpec, ContainerState, ContainerSummary,
    EngineVersion, ExecSpec, ImageInfo, LogsSpec, NetworkSpec, NetworkSummary, Removal,
};
use super::{Engine, convert, limits};

/// How often an ended exec is asked for its exit code: the daemon closes the output a moment before it notes the code.
const EXIT_CODE_POLL: Duration = Duration::from_millis(5);
/// How long the exit code may be in coming after the end of the output.
const EXIT_CODE_LIMIT: Duration = Duration::from_secs(5);

fn by_label(label: &str) -> Option<std::collections::HashMap<String, Vec<String>>> {
    (!label.is_empty()).then(|| [("label".to_owned(), vec![label.to_owned()])].into())
}

fn feed(output: &mut (dyn OutputSink + '_), chunk: &LogOutput) {
    match chunk {
        LogOutput::StdErr { message } => output.write(OutputStream::Stderr, message),
        LogOutput::StdOut { message } | LogOutput::Console { message } => {
            output.write(OutputStream::Stdout, message);
        }
        // The daemon does not send it.
        LogOutput::StdIn { .. } => {}
    }
}

impl DockerEngine {
    /// `--cmd []` over the API means "the image's own" unless the entrypoint is given too.
    async fn with_cleared_command(&self, spec: &ContainerSpec) -> Result<Option<ContainerSpec>, EngineError> {
        if spec.entrypoint.is_some() || spec.command.as_ref().is_none_or(|words| !words.is_empty()) {
            return Ok(None);
        }
        let image = self.inspect_image(&spec.image).await?.ok_or_else(|| EngineError::NotFound {
            what: format!("create container {}", spec.name),
            message: format!("no such image: {}", spec.image),
        })?;
        Ok(Some(ContainerSpec { entrypoint: Some(image.entrypoint), ..spec.clone() }))
    }

    async fn exec_to_end(
        &self,
        id: &str,
        spec: &ExecSpec,
        output: &mut (dyn OutputSink + '_),
    ) -> Result<i64, ClientError> {
        let options = CreateExecOptions::<String> {
            attach_stdin: Some(spec.stdin.is_some()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: Some(convert::join_env(&spec.env)),
            cmd: Some(spec.argv.clone()),
            user: convert::given(&spec.user),
            working_dir: convert::given(&spec.working_dir),
            ..CreateExecOptions::default()
        };
        let exec = self.client().create_exec(id, options).await?.id;
        let started = self.client().start_exec(&exec, None::<StartExecOptions>).await?;
        let StartExecResults::Attached { output: mut chunks, mut input } = started else {
            return Err(std::io::Error::other("the exec was detached").into());
        };
        let write_all = async {
            if let Some(bytes) = &spec.stdin {
                // A command may end without reading all of its input: that is its right, not an error.
                let _ = input.write_all(bytes).await;
                let _ = input.shutdown().await;
            }
            // The writing half stays open until the output ends: closing it earlier would end the session.
            input
        };
        let read_all = async {
            while let Some(chunk) = chunks.try_next().await? {
                feed(output, &chunk);
            }
            Ok::<_, ClientError>(())
        };
        let (_input, read) = tokio::join!(write_all, read_all);
        read?;
        self.exit_code_of(&exec).await
    }

    async fn attach_now(&self, id: &str, spec: &AttachSpec) -> Result<Attached, ClientError> {
        let options = CreateExecOptions::<String> {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(spec.terminal.is_some()),
            env: Some(convert::join_env(&spec.env)),
            cmd: Some(spec.argv.clone()),
            ..CreateExecOptions::default()
        };
        let exec = self.client().create_exec(id, options).await?.id;
        let how = StartExecOptions { tty: spec.terminal.is_some(), ..StartExecOptions::default() };
        let StartExecResults::Attached { output, input } = self.client().start_exec(&exec, Some(how)).await?
        else {
            return Err(std::io::Error::other("the exec was detached").into());
        };
        let (what, address) =
            (format!("read what a command in container {id} writes"), self.address().to_owned());
        let output = output.filter_map(move |chunk| {
            let part = match chunk {
                Ok(LogOutput::StdErr { message }) => Some(Ok((OutputStream::Stderr, message))),
                Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                    Some(Ok((OutputStream::Stdout, message)))
                }
                Ok(LogOutput::StdIn { .. }) => None,
                Err(error) => Some(Err(classify(&what, &address, error))),
            };
            std::future::ready(part)
        });
        Ok(Attached { exec, input, output: output.boxed() })
    }

    async fn exit_code_of(&self, exec: &str) -> Result<i64, ClientError> {
        let deadline = tokio::time::Instant::now() + EXIT_CODE_LIMIT;
        loop {
            let state = self.client().inspect_exec(exec).await?;
            match state.exit_code {
                Some(code) if state.running != Some(true) => return Ok(code),
                _ if tokio::time::Instant::now() > deadline => {
                    return Err(std::io::Error::other("the engine knows no exit code of the exec").into());
                }
                _ => tokio::time::sleep(EXIT_CODE_POLL).await,
            }
        }
    }

    async fn build_to_end(
        &self,
        options: query::BuildImageOptions,
        context: ByteStream,
        log: &mut HeadTail,
    ) -> Result<Option<String>, ClientError> {
        let body = bollard::body_try_stream(context);
        let mut progress = self.client().build_image(options, None, Some(body));
        let mut image = None;
        while let Some(step) = progress.try_next().await? {
            if let Some(text) = step.stream.or(step.status) {
                log.push(text.as_bytes());
            }
            if let Some(failure) = step.error_detail {
                let error = failure.message.unwrap_or_else(|| "unknown".to_owned());
                return Err(ClientError::DockerStreamError { error });
            }
            image = step.aux.and_then(|aux| aux.id).or(image);
        }
        Ok(image)
    }
}

/// Reads progress to its end, and gives up when nothing comes for [`limits::PULL_STALL`].
async fn drain_pull<T>(
    mut progress: impl Stream<Item = Result<T, ClientError>> + Unpin,
    refusal: impl Fn(T) -> Option<String>,
) -> Result<(), ClientError> {
    loop {
        let Ok(next) = tokio::time::timeout(limits::PULL_STALL, progress.next()).await else {
            let error = format!("no progress for {:?}", limits::PULL_STALL);
            return Err(ClientError::DockerStreamError { error });
        };
        match next {
            None => return Ok(()),
            Some(Err(error)) => return Err(error),
            Some(Ok(step)) => {
                if let Some(error) = refusal(step) {
                    return Err(ClientError::DockerStreamError { error });
                }
            }
        }
    }
}

#[async_trait]
impl Engine for DockerEngine {
    fn address(&self) -> &str {
        self.endpoint()
    }

    async fn ping(&self) -> Result<(), EngineError> {
        self.call("ping the engine", limits::PING, self.client().ping()).await.map(drop)
    }

    async fn version(&self) -> Result<EngineVersion, EngineError> {
        let both = async { Ok((self.client().version().await?, self.client().info().await?)) };
        let (version, info) = self.call("ask the engine for its version", limits::PING, both).await?;
        Ok(convert::version(version, info))
    }

    async fn inspect_image(&self, reference: &str) -> Result<Option<ImageInfo>, EngineError> {
        let what = format!("inspect image {reference}");
        check_name(&what, reference)?;
        match self.call(&what, limits::CALL, self.client().inspect_image(reference)).await {
            Ok(image) => convert::image(&what, image).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn load_image(&self, tar: ByteStream) -> Result<Vec<String>, EngineError> {
        let what = "load an image";
        // An error of our own stream reaches the client as a broken request: keep what it was.
        let (failed, mut failure) = tokio::sync::mpsc::unbounded_channel();
        let tar = tar.inspect_err(move |error| {
            let _ = failed.send(error.to_string());
        });
        let options = query::ImportImageOptionsBuilder::default().quiet(true).build();
        let load = async {
            let mut steps = self.client().import_image_stream(options, tar, None);
            let mut loaded = Vec::new();
            while let Some(step) = steps.try_next().await? {
                loaded.extend(step.stream.as_deref().and_then(convert::loaded_reference));
            }
            Ok(loaded)
        };
        match (self.call(what, limits::IMAGE_TRANSFER, load).await, failure.try_recv()) {
            (Err(_), Ok(message)) => Err(EngineError::Input { what: what.to_owned(), message }),
            (answer, _) => answer,
        }
    }

    async fn save_image(&self, reference: &str) -> Result<ByteStream, EngineError> {
        let what = format!("save image {reference}");
        check_name(&what, reference)?;
        let client = self.client().clone();
        let name = reference.to_owned();
        let mut pieces = Box::pin(async_stream_of(client, name));
        // The first piece tells whether the image is there at all.
        let first = self.call(&what, limits::IMAGE_TRANSFER, async { pieces.try_next().await }).await?;
        let rest = pieces.map_err(std::io::Error::other);
        Ok(Box::pin(futures::stream::iter(first.map(Ok)).chain(rest)))
    }

    async fn tag_image(&self, reference: &str, new_reference: &str) -> Result<(), EngineError> {
        let what = format!("tag image {reference} as {new_reference}");
        check_name(&what, reference)?;
        check_name(&what, new_reference)?;
        let (repo, tag) = convert::split_tag(new_reference);
        let options = query::TagImageOptionsBuilder::default().repo(repo).tag(tag).build();
        self.call(&what, limits::CALL, self.client().tag_image(reference, Some(options))).await
    }

    async fn pull_image(&self, reference: &str) -> Result<(), EngineError> {
        let what = format!("pull image {reference}");
        check_name(&what, reference)?;
        let mut options = query::CreateImageOptionsBuilder::default();
        // Without a tag the engine would pull them all.
        options = if reference.contains('@') {
            options.from_image(reference)
        } else {
            let (repo, tag) = convert::split_tag(reference);
            options.from_image(repo).tag(tag)
        };
        let progress = Box::pin(self.client().create_image(Some(options.build()), None, None));
        let pulled = drain_pull(progress, |step| step.error_detail.and_then(|detail| detail.message));
        self.call(&what, limits::PULL, pulled).await
    }

    async fn build_image(&self, spec: BuildSpec) -> Result<String, BuildError> {
        let what = format!("build image {}", spec.tag);
        check_name(&what, &spec.tag)?;
        let mut log = HeadTail::with_limit(limits::BUILD_LOG_BYTES);
        let options = convert::build_options(&spec);
        let outcome = tokio::time::timeout(limits::BUILD, self.build_to_end(options, spec.context, &mut log));
        match outcome.await {
            Ok(Ok(Some(id))) => Ok(id),
            Ok(Ok(None)) => {
                let message = "the build ended without an image id".to_owned();
                Err(EngineError::Protocol { what, message }.into())
            }
            Ok(Err(
                ClientError::DockerStreamError { error: message }
                | ClientError::DockerResponseServerError { status_code: 400, message },
            )) => Err(BuildError::Failed(BuildFailure { message, log: log.to_text() })),
            Ok(Err(error)) => Err(classify(&what, self.endpoint(), error).into()),
            Err(_) => Err(EngineError::TimedOut { what, limit: limits::BUILD }.into()),
        }
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        let what = format!("remove image {reference}");
        check_name(&what, reference)?;
        let all_references = reference.starts_with("sha256:");
        let options = query::RemoveImageOptionsBuilder::default().force(all_references).build();
        let removal = self.client().remove_image(reference, Some(options), None);
        match self.call(&what, limits::REMOVE, removal).await {
            Err(error) if error.is_not_found() => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn create_network(&self, spec: &NetworkSpec) -> Result<String, EngineError> {
        let what = format!("create network {}", spec.name);
        let request = NetworkCreateRequest {
            name: spec.name.clone(),
            driver: Some("bridge".to_owned()),
            internal: Some(spec.internal),
            labels: Some(spec.labels.clone().into_iter().collect()),
            ..NetworkCreateRequest::default()
        };
        Ok(self.call(&what, limits::CALL, self.client().create_network(request)).await?.id)
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        let what = format!("remove network {name}");
        check_name(&what, name)?;
        match self.call(&what, limits::CALL, self.client().remove_network(name)).await {
            Err(error) if error.is_not_found() => Ok(()),
            answer => answer,
        }
    }

    async fn connect_network(&self, network: &str, id: &str, aliases: &[String]) -> Result<(), EngineError> {
        let what = format!("connect container {id} to network {network}");
        check_name(&what, network)?;
        let request = NetworkConnectRequest {
            container: id.to_owned(),
            endpoint_config: Some(EndpointSettings {
                aliases: Some(aliases.to_vec()),
                ..EndpointSettings::default()
            }),
        };
        self.call(&what, limits::CALL, self.client().connect_network(network, request)).await
    }

    async fn disconnect_network(&self, network: &str, id: &str) -> Result<(), EngineError> {
        let what = format!("disconnect container {id} from network {network}");
        check_name(&what, network)?;
        let request = NetworkDisconnectRequest { container: id.to_owned(), force: Some(true) };
        self.call(&what, limits::CALL, self.client().disconnect_network(network, request)).await
    }

    async fn list_networks(&self, label: &str) -> Result<Vec<NetworkSummary>, EngineError> {
        let options = query::ListNetworksOptions { filters: by_label(label) };
        let listed = self.client().list_networks(Some(options));
        let networks = self.call("list networks", limits::CALL, listed).await?;
        Ok(networks.into_iter().map(convert::network).collect())
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let what = format!("create container {}", spec.name);
        check_name(&what, &spec.name)?;
        let cleared = self.with_cleared_command(spec).await?;
        let body = convert::container_body(cleared.as_ref().unwrap_or(spec));
        let options = query::CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let created = self.client().create_container(Some(options), body);
        Ok(self.call(&what, limits::CALL, created).await?.id)
    }

    async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        let what = format!("start container {id}");
        check_name(&what, id)?;
        self.call(&what, limits::CALL, self.client().start_container(id, None)).await
    }

    async fn kill_container(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        let what = format!("send {signal} to container {id}");
        check_name(&what, id)?;
        let options = query::KillContainerOptionsBuilder::default().signal(signal).build();
        self.call(&what, limits::CALL, self.client().kill_container(id, Some(options))).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let what = format!("stop container {id}");
        check_name(&what, id)?;
        // The API knows whole seconds only; a shorter grace must not become none.
        let seconds = grace.as_millis().div_ceil(1000).try_into().unwrap_or(i32::MAX);
        let options = query::StopContainerOptionsBuilder::default().t(seconds).build();
        let limit = grace + limits::STOP_MARGIN;
        self.call(&what, limit, self.client().stop_container(id, Some(options))).await
    }

    async fn pause_container(&self, id: &str) -> Result<(), EngineError> {
        let what = format!("pause container {id}");
        check_name(&what, id)?;
        self.call(&what, limits::CALL, self.client().pause_container(id)).await
    }

    async fn unpause_container(&self, id: &str) -> Result<(), EngineError> {
        let what = format!("unpause container {id}");
        check_name(&what, id)?;
        self.call(&what, limits::CALL, self.client().unpause_container(id)).await
    }

    async fn wait_container(&self, id: &str, limit: Duration) -> Result<i64, EngineError> {
        let what = format!("wait for container {id}");
        check_name(&what, id)?;
        let ended = async {
            match self.client().wait_container(id, None).next().await {
                Some(Ok(answer)) => Ok(answer.status_code),
                // The client makes an error of every exit code but 0.
                Some(Err(ClientError::DockerContainerWaitError { error, code })) if error.is_empty() => {
                    Ok(code)
                }
                Some(Err(error)) => Err(error),
                None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            }
        };
        self.call(&what, limit, ended).await
    }

    async fn remove_container(&self, id: &str, how: Removal) -> Result<(), EngineError> {
        let what = format!("remove container {id}");
        check_name(&what, id)?;
        let options = query::RemoveContainerOptionsBuilder::default().force(how.force).v(how.volumes).build();
        match self.call(&what, limits::REMOVE, self.client().remove_container(id, Some(options))).await {
            Err(EngineError::Conflict { message, .. }) if message.contains("already in progress") => {
                self.wait_until_removed(&what, id).await
            }
            Err(error) if error.is_not_found() => Ok(()),
            answer => answer,
        }
    }

    async fn inspect_container(&self, id: &str) -> Result<ContainerState, EngineError> {
        let what = format!("inspect container {id}");
        check_name(&what, id)?;
        let state = self.call(&what, limits::CALL, self.client().inspect_container(id, None)).await?;
        convert::container_state(&what, state)
    }

    async fn exec(
        &self,
        id: &str,
        spec: &ExecSpec,
        output: &mut (dyn OutputSink + '_),
    ) -> Result<i64, EngineError> {
        let what = format!("run {} in container {id}", spec.argv.first().map_or("nothing", String::as_str));
        check_name(&what, id)?;
        self.call(&what, spec.limit, Box::pin(self.exec_to_end(id, spec, output))).await
    }

    async fn attach(&self, id: &str, spec: &AttachSpec) -> Result<Attached, EngineError> {
        let what = format!("run {} in container {id}", spec.argv.first().map_or("nothing", String::as_str));
        check_name(&what, id)?;
        let attached = self.call(&what, limits::CALL, Box::pin(self.attach_now(id, spec))).await?;
        if let Some((rows, columns)) = spec.terminal {
            // A command that has ended already has no terminal any more.
            let _ = self.resize_attached(&attached.exec, rows, columns).await;
        }
        Ok(attached)
    }

    async fn resize_attached(&self, exec: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        let size = ResizeExecOptions { height: rows, width: columns };
        self.call("resize a terminal", limits::CALL, self.client().resize_exec(exec, size)).await
    }

    async fn attached_exit(&self, exec: &str) -> Result<i64, EngineError> {
        self.call("ask for an exit code", limits::CALL, self.exit_code_of(exec)).await
    }

    async fn logs(
        &self,
        id: &str,
        spec: LogsSpec,
        output: &mut (dyn OutputSink + '_),
    ) -> Result<(), EngineError> {
        let what = format!("read the log of container {id}");
        check_name(&what, id)?;
        let options = query::LogsOptionsBuilder::default().stdout(true).stderr(true);
        let (options, limit) = match spec {
            LogsSpec::All => (options.tail("all"), limits::LOGS),
            LogsSpec::Tail(lines) => (options.tail(&lines.to_string()), limits::LOGS),
            LogsSpec::Follow(limit) => (options.tail("all").follow(true), limit),
        };
        let mut chunks = Box::pin(self.client().logs(id, Some(options.build())));
        let read = async {
            while let Some(chunk) = chunks.try_next().await? {
                feed(output, &chunk);
            }
            Ok(())
        };
        self.call(&what, limit, read).await
    }

    async fn list_containers(&self, label: &str) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = by_label(label);
        let options = query::ListContainersOptions { all: true, filters, ..Default::default() };
        let listed = self.client().list_containers(Some(options));
        let containers = self.call("list containers", limits::CALL, listed).await?;
        Ok(containers.into_iter().map(convert::container_summary).collect())
    }
}

impl DockerEngine {
    async fn wait_until_removed(&self, what: &str, id: &str) -> Result<(), EngineError> {
        let options = query::WaitContainerOptionsBuilder::default().condition("removed").build();
        let mut removed = Box::pin(self.client().wait_container(id, Some(options)));
        let gone = async {
            // Whatever the answer is: an exit code, a code that the client makes an error of, or 404.
            match removed.next().await {
                Some(Err(ClientError::DockerResponseServerError { status_code, message }))
                    if status_code != 404 =>
                {
                    Err(ClientError::DockerResponseServerError { status_code, message })
                }
                _ => Ok(()),
            }
        };
        self.call(what, limits::REMOVE, gone).await
    }
}

/// The client's stream, owning what it borrows.
fn async_stream_of(
    client: bollard::Docker,
    name: String,
) -> impl Stream<Item = Result<bytes::Bytes, ClientError>> + Send {
    futures::stream::once(async move { client.export_image(&name).boxed() }).flatten()
}
