//! `org create`, `org show`, `org list`.

use crate::{
    cli::{Org, OrgCreate},
    command::Context,
    daemon,
    devices::{self, Devices},
    failure::Result,
    output::table,
    rpc::{DeviceCall, DeviceView, OrganizationView, Request},
};

pub(super) fn run(context: &Context, command: Org) -> Result<()> {
    match command {
        Org::Create(arguments) => create(context, arguments),
        Org::Show => context.output.answer(&context.ask_device(DeviceCall::Organization)?, text),
        Org::List => list(context),
    }
}

fn create(context: &Context, arguments: OrgCreate) -> Result<()> {
    let backend = daemon::storage_url(&arguments.backend)?;
    let request = Request::CreateOrganization {
        organization: arguments.organization,
        backend,
        email: arguments.email,
        name: arguments.name,
        device: context.new_device(arguments.device)?,
    };
    let made: OrganizationView = context.client.call(&request)?;
    context.output.answer(&made, text)?;
    context.output.note("next: mountctl workspace create NAME");
    context.output.note("and, so that a lost disk is not the end: mountctl device recovery export FILE");
    Ok(())
}

fn text(view: &OrganizationView) -> String {
    let mut lines = vec![
        format!("organization  {}", view.organization),
        format!("kept in       {}", view.backend),
        format!("fingerprint   {}", view.fingerprint),
        format!("device        {}", view.device_id),
        format!("workspaces    {}", view.workspaces),
    ];
    for user in &view.users {
        let end = if user.revoked { " (revoked)" } else { "" };
        lines.push(format!("user          {} <{}>, {}{end}", user.name, user.email, user.profile));
    }
    lines.join("\n")
}

fn list(context: &Context) -> Result<()> {
    let known: Vec<DeviceView> = Devices::of(&context.home)?.all().iter().map(devices::view).collect();
    context.output.answer(&known, |known| {
        let rows: Vec<_> = known
            .iter()
            .map(|device| {
                [device.organization.clone(), device.backend.clone(), device.email.clone(), device.label.clone()]
            })
            .collect();
        table(["ORGANIZATION", "KEPT IN", "USER", "DEVICE"], &rows)
    })
}
