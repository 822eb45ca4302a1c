//! How the program keeps memory that was given back.

use thalamus_edge::memory::SETTINGS;

use crate::cli_support::Clinic;

#[test]
fn a_node_has_the_settings_of_the_allocator_however_it_is_started() {
    let clinic = Clinic::new();
    let node = clinic.serve(&[]);
    let environment = node.environment();
    for (name, value) in SETTINGS {
        assert!(environment.contains(&format!("{name}={value}")), "{environment:?}");
    }
    node.stop();
    // What an administrator has set stays.
    let (name, _) = SETTINGS[0];
    let node = clinic.serve_with_variable(name, "1");
    let environment = node.environment();
    assert!(environment.contains(&format!("{name}=1")), "{environment:?}");
    assert!(environment.iter().any(|variable| variable.starts_with(SETTINGS[1].0)), "{environment:?}");
    node.stop();
}

/// A system that takes the settings away again must not make the program start itself for ever.
#[test]
fn a_node_starts_itself_again_only_once() {
    let clinic = Clinic::new();
    let node = clinic.serve_with_variable("THALAMUS_EDGE_MALLOC", "set");
    let (name, _) = SETTINGS[0];
    assert!(!node.environment().iter().any(|variable| variable.starts_with(name)));
    node.stop();
}
