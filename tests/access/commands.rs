//! Commands that connect with TLS.

use std::{fs, process::Stdio};

use crate::authority::{Authority, TlsFolder, Validity};
use test_support::sidecar::{Form, Sidecar, command};

/// Exports the conversations of a user with these arguments, and returns the exit status and the errors.
async fn export(arguments: &[&str]) -> (i32, String) {
    let mut command = command();
    command
        .args(["export", "-", "--user", "ana"])
        .args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await;
    let output = output.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), errors)
}

#[tokio::test]
async fn commands_connect_with_tls_and_a_certificate() {
    let (authority, callers) = (Authority::new(), Authority::new());
    let files = TlsFolder::of(&authority.server());
    let caller = callers.client("spiffe://example.org/importer", Validity::Now);
    let write = |name: &str, contents: &str| {
        let path = files.path(name);
        fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = write("ca.crt", &authority.pem());
    let callers = write("callers.crt", &callers.pem());
    let certificate = write("caller.crt", &caller.certificate);
    let key = write("caller.key", &caller.key);
    let empty = write("empty", "");
    let own = files.settings();
    let mut settings: Vec<_> = own.iter().map(|(name, path)| (*name, &**path)).collect();
    settings.push(("TLS_CLIENT_CA_FILE", &callers));
    let form = Form::embedded();
    let sidecar = Sidecar::start_with(&form, &settings).await;

    let plain = sidecar.address.to_string();
    let address = format!("https://localhost:{}", sidecar.address.port());
    let complete = [
        "--address",
        &address,
        "--ca-file",
        &ca,
        "--cert-file",
        &certificate,
        "--key-file",
        &key,
    ];
    let (status, errors) = export(&complete).await;
    assert_eq!(status, 0, "{errors}");

    let other_name = format!("https://127.0.0.1:{}", sidecar.address.port());
    let replaced = |index: usize, with| {
        let mut arguments = complete;
        arguments[index] = with;
        arguments.to_vec()
    };
    for (arguments, status, expected) in [
        (complete[..4].to_vec(), 1, "CertificateRequired"),
        (complete[..2].to_vec(), 1, "UnknownIssuer"),
        (complete[..6].to_vec(), 2, "--key-file"),
        (complete[2..].to_vec(), 2, "--address"),
        (replaced(1, &other_name), 1, "not valid for name"),
        (replaced(1, &plain), 1, "https://"),
        (replaced(3, "missing"), 1, "missing: no such file"),
        (replaced(3, &empty), 1, "no certificate in PEM"),
        (replaced(5, &empty), 1, "no certificate in PEM"),
        (replaced(7, &empty), 1, "no private key in PEM"),
        (replaced(5, &ca), 1, "cannot be used with the key"),
    ] {
        let (ended, errors) = export(&arguments).await;
        assert_eq!(ended, status, "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
        assert!(status == 2 || errors.lines().count() == 1, "{errors}");
    }
}
