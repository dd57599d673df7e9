//! `audit`: who was given what and when, who changed what last, what owners still have to do.

use crate::{
    cli::Audit,
    command::Context,
    failure::Result,
    output::table,
    rpc::{Actor, AuditEvent, AuditView, DeviceCall},
};

pub(super) fn run(context: &Context, arguments: Audit) -> Result<()> {
    let view: AuditView = context.ask_device(DeviceCall::Audit { workspace: arguments.workspace })?;
    context.output.answer(&view, text)
}

fn text(view: &AuditView) -> String {
    let events: Vec<_> =
        view.events.iter().map(|event| [event.at.clone(), by(event.by.as_ref()), what(event)]).collect();
    let entries: Vec<_> = view
        .entries
        .iter()
        .map(|entry| [entry.at.clone(), by(Some(&entry.by)), entry.version.to_string(), entry.path.clone()])
        .collect();
    let duties = view.pending.iter().flat_map(|duty| {
        let members = duty.revoked_members.iter();
        let members =
            members.map(|user| format!("pending: {user} is revoked and still a member of {}", duty.workspace));
        let rotation = duty.rotation_due.then(|| format!("pending: {} needs a new key", duty.workspace));
        members.chain(rotation)
    });
    let parts = [table(["WHEN", "BY", "WHAT"], &events), table(["LAST CHANGE", "BY", "VERSION", "PATH"], &entries)];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    let duties = duties.collect::<Vec<_>>().join("\n");
    parts.chain(Some(duties).filter(|duties| !duties.is_empty())).collect::<Vec<_>>().join("\n\n")
}

fn by(actor: Option<&Actor>) -> String {
    let Some(actor) = actor else { return "the organization's root key".to_owned() };
    let user = actor.user.as_deref().unwrap_or("somebody unknown");
    format!("{user} ({})", actor.device.as_ref().unwrap_or(&actor.device_id))
}

fn what(event: &AuditEvent) -> String {
    let or = |text: &Option<String>, other: &str| text.clone().unwrap_or_else(|| other.to_owned());
    let user = or(&event.user, "somebody");
    let workspace = or(&event.workspace, "a workspace");
    match event.event.as_str() {
        "user_created" => format!("{user} joined as {}", or(&event.profile, "a user")),
        "device_created" => format!("device {} of {user} was added", device(event)),
        "profile_changed" => format!("{user} became {}", or(&event.profile, "something else")),
        "user_revoked" => format!("{user} was revoked"),
        "role_given" => format!("{user} became {} of {workspace}", or(&event.role, "a member")),
        "role_taken" => format!("{user} is no longer a member of {workspace}"),
        "workspace_named" => format!("{workspace} was named {}", or(&event.name, "something that cannot be read here")),
        "key_rotated" => format!("{workspace} got key {}", event.key_index.unwrap_or_default()),
        "workspace_archived" => format!("{workspace} was archived"),
        "archiving_ended" => format!("{workspace} can be changed again"),
        "deletion_planned" => format!("{workspace} is to be deleted"),
        "shared_recovery_set_up" => format!("{user} can be recovered by others together"),
        "recovery_share_given" => format!("{user} was given a share"),
        "shared_recovery_ended" => format!("{user} can no longer be recovered by others together"),
        other => other.replace('_', " "),
    }
}

fn device(event: &AuditEvent) -> String {
    let device = event.device.as_ref();
    device.map_or_else(String::new, |device| device.device.clone().unwrap_or_else(|| device.device_id.clone()))
}
