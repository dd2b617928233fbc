//! The conversation as JSON. Text that is UTF-8 is a string; other text is `{"latin1": "..."}`, in which each
//! character stands for one byte. docs/milter-send.schema.json describes all of it.

use std::time::Duration;

use milter::mta::{
    Change, Delivery, Disposition, Exchange, Mailbox, Omission, Outcome, Session, Verdict, Warning, flag_list,
};
use milter::protocol::{Actions, Offer, Steps};
use serde::Serialize;
use serde_json::{Value, json};

use super::dialogue::stage_name;
use super::input::Input;

/// The version of the schema: it changes when a program that reads the report would have to.
const SCHEMA: u32 = 1;

/// All that there is to tell.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    schema: u32,
    filter: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    negotiation: Option<Value>,
    exchanges: Vec<Value>,
    messages: Vec<Value>,
    warnings: Vec<Value>,
    error: Option<String>,
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    milliseconds: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<Value>,
}

impl Report {
    /// Starts with the filter's address.
    pub fn new(filter: String) -> Self {
        Self { schema: SCHEMA, filter, ..Self::default() }
    }

    /// The two sides of the negotiation.
    pub fn negotiation(&mut self, offer: Offer, session: &Session, time: Option<Duration>) {
        let agreed = session.agreed();
        let macros: serde_json::Map<_, _> = agreed
            .macro_lists
            .iter()
            .map(|(stage, list)| (stage_name(*stage).to_owned(), text(list)))
            .collect();
        self.negotiation = Some(json!({
            "offered": flags(offer.version, offer.actions, offer.steps),
            "agreed": flags(agreed.version, session.actions(), session.steps()),
            "macros": macros,
            "warnings": warnings(session.warnings()),
        }));
        if let (Some(negotiation), Some(time)) = (&mut self.negotiation, time) {
            negotiation["milliseconds"] = milliseconds(time);
        }
    }

    /// One exchange, and how long it took.
    pub fn exchange(&mut self, exchange: &Exchange, time: Option<Duration>) {
        let mut value = json!({ "command": exchange.command.name(), "argument": text(&exchange.argument) });
        let mut set = |key: &str, field: Value| value[key] = field;
        match &exchange.outcome {
            Outcome::Answered(verdict) => set("answer", answer(verdict)),
            Outcome::NotAwaited => set("answer", json!("not awaited")),
            Outcome::NoneDue => set("answer", Value::Null),
            Outcome::NotSent(omission) => set("not_sent", json!(omission_key(*omission))),
            Outcome::Refused(why) => set("refused", json!(why)),
            Outcome::Failed(failure) => set("failed", json!(failure.text)),
        }
        if let Some(reply) = &exchange.reply {
            set("client_reads", text(reply));
        }
        if !exchange.warnings.is_empty() {
            set("warnings", warnings(&exchange.warnings));
        }
        if let Some(macros) = &exchange.macros {
            let macros: serde_json::Map<_, _> = macros
                .iter()
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), text(value)))
                .collect();
            set("macros", Value::Object(macros));
        }
        if exchange.progress > 0 {
            set("progress", json!(exchange.progress));
        }
        if !exchange.changes.is_empty() {
            set("changes", exchange.changes.iter().map(change).collect());
        }
        if let Some(time) = time {
            set("milliseconds", milliseconds(time));
        }
        self.exchanges.push(value);
    }

    /// What became of a message, what was expected of it and what is found instead, and how long it took.
    pub fn delivery(
        &mut self,
        input: &Input,
        delivery: &Delivery,
        checks: &[(String, Option<String>)],
        time: Option<Duration>,
        with_message: bool,
    ) {
        let (disposition, reply) = match &delivery.disposition {
            Disposition::Accepted => ("accepted", None),
            Disposition::Rejected(reply) => ("rejected", Some(reply)),
            Disposition::TempFailed(reply) => ("tempfailed", Some(reply)),
            Disposition::Discarded => ("discarded", None),
            Disposition::GivenUp => ("given up", None),
        };
        let envelope = &delivery.mail.envelope;
        let refused = delivery.refused.iter().map(|(recipient, reply)| {
            let mut refused = mailbox(recipient);
            refused["answer"] = json!({ "reply": text(reply) });
            refused
        });
        let mut value = json!({
            "file": input.file,
            "part": input.part,
            "disposition": disposition,
            "reply": reply.map(|reply| text(reply)),
            "decided_by": delivery.decided_by.name(),
            "quarantine": envelope.quarantine.as_deref().map(text),
            "sender": mailbox(&envelope.sender),
            "recipients": envelope.recipients.iter().map(mailbox).collect::<Vec<_>>(),
            "refused": refused.collect::<Vec<_>>(),
            "changes": delivery.changes.iter().map(change).collect::<Vec<_>>(),
        });
        if with_message {
            let message = delivery.mail.message();
            let header = |header: &milter::mta::Header| json!({ "name": text(header.name()), "value": text(&header.value_for_filter(true)) });
            value["headers"] = message.headers.iter().map(header).collect();
            value["body"] = text(&message.body);
        }
        if !checks.is_empty() {
            let check = |(expectation, failure): &(String, Option<String>)| json!({ "expectation": expectation, "holds": failure.is_none(), "found": failure });
            value["expectations"] = checks.iter().map(check).collect();
        }
        if let Some(time) = time {
            value["milliseconds"] = milliseconds(time);
        }
        self.messages.push(value);
    }

    /// Something that should be known.
    pub fn warning(&mut self, warning: &str) {
        self.warnings.push(json!({ "statement": null, "text": warning }));
    }

    /// Why the conversation ended too early, and what may help.
    pub fn error(&mut self, error: String, hint: Option<String>) {
        self.error = Some(error);
        self.hint = hint;
    }

    /// What many connections have shown.
    pub fn load(&mut self, load: Value) {
        self.load = Some(load);
    }

    /// How long everything took, and how long the filter.
    pub fn total(&mut self, time: Duration, waited: Duration) {
        self.milliseconds = Some(json!({ "total": milliseconds(time), "filter": milliseconds(waited) }));
    }
}

/// To the microsecond.
fn milliseconds(time: Duration) -> Value {
    json!((time.as_secs_f64() * 1e6).round() / 1e3)
}

fn flags(version: u32, actions: Actions, steps: Steps) -> Value {
    json!({ "version": version, "actions": flag_list(&actions), "steps": flag_list(&steps) })
}

fn mailbox(mailbox: &Mailbox) -> Value {
    let arguments: Vec<_> = mailbox.arguments.iter().map(|argument| text(argument)).collect();
    json!({ "address": text(&mailbox.address), "arguments": arguments })
}

fn answer(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Continue => json!("continue"),
        Verdict::Accept => json!("accept"),
        Verdict::Reject => json!("reject"),
        Verdict::TempFail => json!("tempfail"),
        Verdict::Discard => json!("discard"),
        Verdict::Skip => json!("skip"),
        Verdict::Custom(reply) => json!({ "reply": text(reply) }),
        Verdict::Shutdown => json!("shutdown"),
    }
}

fn warnings(warnings: &[Warning]) -> Value {
    let warning = |warning: &Warning| json!({ "statement": warning.statement, "text": warning.text });
    warnings.iter().map(warning).collect()
}

fn omission_key(omission: Omission) -> &'static str {
    match omission {
        Omission::SwitchedOff => "switched off",
        Omission::Skipped => "skipped",
        Omission::Version => "version",
        Omission::Lost => "lost",
        Omission::Held => "held",
        Omission::Refused => "refused",
    }
}

fn change(change: &Change) -> Value {
    match change {
        Change::AddHeader { name, value } => {
            json!({ "add_header": { "name": text(name), "value": text(value) } })
        }
        Change::InsertHeader { index, name, value } => {
            json!({ "insert_header": { "index": index, "name": text(name), "value": text(value) } })
        }
        Change::ChangeHeader { index, name, value } => {
            json!({ "change_header": { "index": index, "name": text(name), "value": text(value) } })
        }
        Change::ChangeSender { address, arguments } => {
            json!({ "change_sender": { "address": text(address), "arguments": arguments.as_deref().map(text) } })
        }
        Change::AddRecipient { address, arguments } => {
            json!({ "add_recipient": { "address": text(address), "arguments": arguments.as_deref().map(text) } })
        }
        Change::DeleteRecipient { address } => json!({ "delete_recipient": { "address": text(address) } }),
        Change::ReplaceBody { body } => json!({ "replace_body": text(body) }),
        Change::Quarantine { reason } => json!({ "quarantine": text(reason) }),
    }
}

fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "latin1": bytes.iter().copied().map(char::from).collect::<String>() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_exact_whatever_its_bytes() {
        assert_eq!(text("café".as_bytes()), json!("café"));
        assert_eq!(text(b"caf\xe9\0"), json!({ "latin1": "caf\u{e9}\0" }));
    }

    #[test]
    fn answers() {
        assert_eq!(answer(&Verdict::Skip), json!("skip"));
        assert_eq!(answer(&Verdict::Custom(b"550 no".to_vec())), json!({ "reply": "550 no" }));
    }
}
