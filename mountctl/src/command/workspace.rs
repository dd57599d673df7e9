//! `workspace create`, `list`, `members`, `share`, `unshare`, `rename`, `rotate-key`, `archive`.

use crate::{
    cli::Workspace,
    command::Context,
    failure::Result,
    output::table,
    rpc::{DeviceCall, MemberChange, MemberView, WorkspaceChange, WorkspaceView},
};

pub(super) fn run(context: &Context, command: Workspace) -> Result<()> {
    match command {
        Workspace::Create { name } => {
            let made: WorkspaceView = context.ask_device(DeviceCall::CreateWorkspace { name })?;
            context
                .output
                .answer(&made, |made| format!("workspace  {}\nid         {}", made.name, made.workspace_id))?;
            context.output.note(&format!("next: mountctl mount {:?}", made.name));
            Ok(())
        }
        Workspace::List => {
            let list: Vec<WorkspaceView> = context.ask_device(DeviceCall::Workspaces)?;
            context.output.answer(&list, |list| text(list))
        }
        Workspace::Members { workspace } => {
            let list: Vec<MemberView> = context.ask_device(DeviceCall::Members { workspace })?;
            context.output.answer(&list, |list| members(list))
        }
        Workspace::Share { workspace, user, role } => {
            change_member(context, workspace, MemberChange::Share { user, role })
        }
        Workspace::Unshare { workspace, user } => change_member(context, workspace, MemberChange::Unshare { user }),
        Workspace::Rename { workspace, name } => change(context, workspace, WorkspaceChange::Rename { name }),
        Workspace::RotateKey { workspace } => change(context, workspace, WorkspaceChange::RotateKey),
        Workspace::Archive { workspace, undo } => {
            change(context, workspace, WorkspaceChange::Archive { archived: !undo })
        }
    }
}

fn change_member(context: &Context, workspace: String, change: MemberChange) -> Result<()> {
    let changed: MemberView = context.ask_device(DeviceCall::ChangeMember { workspace, change })?;
    context.output.answer(&changed, |member| match &member.role {
        Some(role) => format!("{} is {role} now", member.user.email),
        None => format!("{} has no role any more", member.user.email),
    })
}

fn change(context: &Context, workspace: String, change: WorkspaceChange) -> Result<()> {
    let changed: WorkspaceView = context.ask_device(DeviceCall::ChangeWorkspace { workspace, change })?;
    context.output.answer(&changed, |changed| text(std::slice::from_ref(changed)))
}

fn members(list: &[MemberView]) -> String {
    let rows: Vec<_> = list
        .iter()
        .map(|member| {
            let state = if member.user.revoked { "revoked" } else { "" };
            let role = member.role.clone().unwrap_or_default();
            [member.user.email.clone(), member.user.name.clone(), role, state.to_owned()]
        })
        .collect();
    table(["USER", "NAME", "ROLE", ""], &rows)
}

fn text(list: &[WorkspaceView]) -> String {
    let rows: Vec<_> = list
        .iter()
        .map(|workspace| {
            let mount = workspace.mount.as_ref().map_or_else(String::new, |dir| dir.display().to_string());
            let role = match workspace.archived {
                true => format!("{}, archived", workspace.role),
                false => workspace.role.clone(),
            };
            [workspace.name.clone(), role, workspace.workspace_id.clone(), mount]
        })
        .collect();
    table(["WORKSPACE", "ROLE", "ID", "MOUNTED ON"], &rows)
}
