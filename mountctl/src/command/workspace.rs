//! `workspace create`, `workspace list`.

use crate::{
    cli::Workspace,
    command::Context,
    failure::Result,
    output::table,
    rpc::{DeviceCall, WorkspaceView},
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
    }
}

fn text(list: &[WorkspaceView]) -> String {
    let rows: Vec<_> = list
        .iter()
        .map(|workspace| {
            let mount = workspace.mount.as_ref().map_or_else(String::new, |dir| dir.display().to_string());
            [workspace.name.clone(), workspace.role.clone(), workspace.workspace_id.clone(), mount]
        })
        .collect();
    table(["WORKSPACE", "ROLE", "ID", "MOUNTED ON"], &rows)
}
