//! `org create`, `org bootstrap`, `org show`, `org list`, `org terms`.

use crate::{
    address,
    cli::{Org, OrgBootstrap, OrgCreate},
    command::Context,
    devices::{self, Devices},
    exit::Kind,
    failure::{Failure, Result},
    output::table,
    password::Source,
    rpc::{DeviceCall, DeviceView, OrganizationView, Permission, Request, TermsView},
    secret::Secret,
};

pub(super) fn run(context: &Context, command: Org) -> Result<()> {
    match command {
        Org::Create(arguments) => create(context, arguments),
        Org::Bootstrap(arguments) => bootstrap(context, arguments),
        Org::Show => context.output.answer(&context.ask_device(DeviceCall::Organization)?, text),
        Org::List => list(context),
        Org::Terms { accept } => terms(context, accept),
    }
}

fn create(context: &Context, arguments: OrgCreate) -> Result<()> {
    let backend = address::storage_url(&address::without_organization(&arguments.backend, &arguments.organization))?;
    let permission = match arguments.admin_token_file {
        Some(_) if !address::is_server(&backend) => {
            return Err(Failure::new(Kind::Usage, "only a server has an administration token"));
        }
        Some(file) => Some(Permission::Administration(Source::file_or_person(Some(file)).existing("")?)),
        None => None,
    };
    let request = Request::CreateOrganization {
        organization: arguments.organization,
        backend,
        email: arguments.email,
        name: arguments.name,
        device: context.new_device(arguments.device)?,
        permission,
    };
    make(context, &request)
}

fn bootstrap(context: &Context, arguments: OrgBootstrap) -> Result<()> {
    let (organization, backend) = address::founding_address(&arguments.url)?;
    let request = Request::CreateOrganization {
        organization,
        backend,
        email: arguments.email,
        name: arguments.name,
        device: context.new_device(arguments.device)?,
        permission: Some(Permission::Link(Secret::new(arguments.url))),
    };
    make(context, &request)
}

fn make(context: &Context, request: &Request) -> Result<()> {
    let made: OrganizationView = context.client.call(request)?;
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

fn terms(context: &Context, accept: bool) -> Result<()> {
    let shown: TermsView = context.ask_device(DeviceCall::Terms { accept: None })?;
    let Some(updated_on) = shown.updated_on.clone().filter(|_| accept) else {
        return context.output.answer(&shown, terms_text);
    };
    context.output.note(&terms_text(&shown));
    context.confirm("You accept these terms of service.")?;
    let accepted: TermsView = context.ask_device(DeviceCall::Terms { accept: Some(updated_on) })?;
    context.output.answer(&accepted, |_| "accepted".to_owned())
}

fn terms_text(terms: &TermsView) -> String {
    let Some(updated_on) = &terms.updated_on else { return "there are no terms of service".to_owned() };
    let urls = terms.urls.iter().map(|(language, url)| format!("{language:<13} {url}"));
    [format!("terms of      {updated_on}")].into_iter().chain(urls).collect::<Vec<_>>().join("\n")
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
