//! The null filter on indymilter: all callbacks, one header added or header replies switched off on
//! request, a sender `<sleep-50@...>` takes 50 ms.
//!
//! `indymilter-null-filter SPEC [h][n]`, as `benches/servers/null-filter.c`.

use indymilter::{Actions, Callbacks, Config, ContextActions, EitherListener, ProtoOpts, Status};
use std::future;
use std::io;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    let spec = words.next().expect("a socket");
    let letters = words.next().unwrap_or_default();
    let (adds_header, silent_headers) = (letters.contains('h'), letters.contains('n'));
    let listener = match spec.split_once(':') {
        Some(("inet", rest)) => {
            let (port, host) = rest.split_once('@').expect("inet:PORT@HOST");
            EitherListener::Tcp(TcpListener::bind(format!("{host}:{port}")).await?)
        }
        Some((_, path)) => EitherListener::Unix(UnixListener::bind(path)?),
        None => panic!("unix:PATH or inet:PORT@HOST"),
    };
    let callbacks = Callbacks::<()>::new()
        .on_negotiate(move |context, _, _| {
            if silent_headers {
                context.requested_opts |= ProtoOpts::NOREPLY_HEADER;
            }
            Box::pin(future::ready(Status::Continue))
        })
        .on_connect(|_, _, _| Box::pin(future::ready(Status::Continue)))
        .on_helo(|_, _| Box::pin(future::ready(Status::Continue)))
        .on_mail(|_, arguments| {
            Box::pin(async move {
                let sender = arguments.first().map(|sender| sender.to_string_lossy()).unwrap_or_default();
                let number = sender.strip_prefix("<sleep-").and_then(|rest| rest.split('@').next());
                if let Some(milliseconds) = number.and_then(|number| number.parse().ok()) {
                    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                }
                Status::Continue
            })
        })
        .on_rcpt(|_, _| Box::pin(future::ready(Status::Continue)))
        .on_data(|_| Box::pin(future::ready(Status::Continue)))
        .on_header(move |_, _, _| {
            Box::pin(future::ready(if silent_headers { Status::Noreply } else { Status::Continue }))
        })
        .on_eoh(|_| Box::pin(future::ready(Status::Continue)))
        .on_body(|_, _| Box::pin(future::ready(Status::Continue)))
        .on_eom(move |context| {
            Box::pin(async move {
                if adds_header && context.actions.add_header("X-Null-Filter", "passed").await.is_err() {
                    return Status::Tempfail;
                }
                Status::Continue
            })
        })
        .on_abort(|_| Box::pin(future::ready(Status::Continue)))
        .on_close(|_| Box::pin(future::ready(Status::Continue)));
    let config = Config { max_connections: 20_000, actions: Actions::ADD_HEADER, ..Config::default() };
    indymilter::run(listener, callbacks, config, future::pending::<()>()).await
}
