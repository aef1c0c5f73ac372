//! The manifests in `k8s/` fit the program: its configuration, its ports and paths, its metrics.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use readygate::check::KINDS;
use readygate::config::{self, Config, Environment, Flags, Sources};
use readygate::gate::{Phase, Transition};
use readygate::metrics::{CheckSeries, FAMILIES, Metrics, Sets};
use regex_lite::Regex;
use serde_json::Value;
use yaml_rust2::{Yaml, YamlEmitter, YamlLoader};

use crate::support::{Scratch, machine};

const DEPLOYMENTS: [&str; 2] = ["deployment-native.yaml", "deployment-classic.yaml"];

fn read(name: &str) -> Vec<Yaml> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s").join(name);
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    YamlLoader::load_from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Hash(entries) => {
            let entry =
                |(key, value): (&Yaml, &Yaml)| (key.as_str().expect("a name").to_owned(), json(value));
            entries.iter().map(entry).collect()
        }
        Yaml::Array(items) => items.iter().map(json).collect(),
        Yaml::Integer(number) => (*number).into(),
        Yaml::Boolean(answer) => (*answer).into(),
        Yaml::String(text) => text.as_str().into(),
        other => panic!("{other:?} in a manifest"),
    }
}

/// One of the documents of a deployment's file.
fn document(name: &str, kind: &str) -> Value {
    let documents: Vec<Value> = read(name).iter().map(json).collect();
    let found = documents.into_iter().find(|document| document["kind"] == kind);
    found.unwrap_or_else(|| panic!("{name} has no {kind}"))
}

/// The configuration that the ConfigMap gives the sidecar, as the sidecar reads it.
fn configuration(name: &str) -> Config {
    let scratch = Scratch::new();
    let file = scratch.join("config.yaml");
    let map = document(name, "ConfigMap");
    fs::write(&file, map["data"]["config.yaml"].as_str().expect("text")).expect("the directory is writable");
    let sources = Sources {
        file: Some(file),
        environment: Environment::new(),
        flags: Flags::default(),
        cpus: NonZeroUsize::MIN,
    };
    let kinds: Vec<_> = KINDS.iter().map(|kind| kind.config).collect();
    config::load(&sources, &kinds).unwrap_or_else(|problems| panic!("{name}: {problems}")).config
}

fn pod(name: &str) -> Value {
    document(name, "Deployment")["spec"]["template"]["spec"].clone()
}

/// The container of this name, wherever it stands.
fn container(name: &str, wanted: &str) -> Value {
    let pod = pod(name);
    let lists = ["initContainers", "containers"];
    let mut all = lists.iter().filter_map(|list| pod[*list].as_array()).flatten();
    let found = all.find(|container| container["name"] == wanted);
    found.unwrap_or_else(|| panic!("{name} has no container {wanted}")).clone()
}

#[test]
fn embedded_configurations_are_valid_and_meet_at_the_ports_of_the_manifests() {
    for name in DEPLOYMENTS {
        let config = configuration(name);
        let (traffic, admin) = (config.listeners[0].listen.port(), config.admin.listen.port());
        assert_eq!(config.listeners.len(), 1, "{name}");
        assert!(config.checks.iter().any(|check| check.kind == "warmup"), "{name} warms nothing up");

        let ports = document(name, "Service")["spec"]["ports"].clone();
        assert_eq!(ports[0]["targetPort"], traffic, "{name}: a number, and the sidecar's");
        let declared: Vec<Value> = container(name, "readygate")["ports"].as_array().expect("ports").clone();
        let declared: Vec<_> = declared.iter().map(|port| port["containerPort"].clone()).collect();
        assert_eq!(declared, [Value::from(traffic), Value::from(admin)], "{name}");
        let app: Vec<Value> = container(name, "app")["ports"].as_array().expect("ports").clone();
        let upstream = format!("127.0.0.1:{}", app[0]["containerPort"]);
        assert_eq!(config.listeners[0].upstream.address.to_string(), upstream, "{name}");
    }
}

/// A guard counts pods by this name, also those that are not ready, and asks them on their admin port.
#[test]
fn peers_are_all_pods_of_the_deployment_at_their_admin_port() {
    let service = document("service-peers.yaml", "Service");
    assert_eq!(
        (&service["spec"]["clusterIP"], &service["spec"]["publishNotReadyAddresses"]),
        (&"None".into(), &true.into())
    );
    let (name, ports) = (&service["metadata"]["name"], &service["spec"]["ports"]);
    for deployment in DEPLOYMENTS {
        let selector = &document(deployment, "Deployment")["spec"]["selector"]["matchLabels"];
        assert_eq!(&service["spec"]["selector"], selector, "{deployment}");
        let admin = Value::from(configuration(deployment).admin.listen.port());
        assert_eq!((&ports[0]["port"], &ports[0]["targetPort"]), (&admin, &admin), "{deployment}");
    }
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s/service-peers.yaml"));
    let named = format!("peers: {}:{}", name.as_str().expect("text"), ports[0]["port"]);
    assert!(text.expect("the file").contains(&named), "its comment names {named}");
}

#[test]
fn both_deployments_carry_the_same_configuration() {
    assert_eq!(configuration(DEPLOYMENTS[0]), configuration(DEPLOYMENTS[1]));
}

#[test]
fn grace_period_covers_the_drain_and_the_app() {
    for name in DEPLOYMENTS {
        let grace = pod(name)["terminationGracePeriodSeconds"].as_u64().expect("seconds");
        let least = configuration(name).drain.deadline + Duration::from_secs(10);
        assert!(Duration::from_secs(grace) >= least, "{name}: {grace} s, expected at least {least:?}");
    }
}

#[test]
fn probes_leave_the_thresholds_to_the_gate_and_hooks_drain() {
    for name in DEPLOYMENTS {
        let admin = configuration(name).admin.listen.port();
        let (sidecar, app) = (container(name, "readygate"), container(name, "app"));
        for (what, request, path) in [
            ("startup", &sidecar["startupProbe"]["httpGet"], "/startup"),
            ("readiness", &sidecar["readinessProbe"]["httpGet"], "/ready"),
            ("liveness", &sidecar["livenessProbe"]["httpGet"], "/live"),
            ("its hook", &sidecar["lifecycle"]["preStop"]["httpGet"], "/drain"),
            ("the app's hook", &app["lifecycle"]["preStop"]["httpGet"], "/wait-for-drain"),
        ] {
            assert_eq!((&request["path"], &request["port"]), (&path.into(), &admin.into()), "{name}: {what}");
        }
        let readiness = &sidecar["readinessProbe"];
        for key in ["periodSeconds", "failureThreshold", "timeoutSeconds"] {
            assert_eq!(readiness[key], 1, "{name}: readinessProbe.{key}");
        }
        assert_eq!(sidecar["startupProbe"]["periodSeconds"], 1, "{name}");
        // A busy pod must not be restarted for being busy.
        let liveness = &sidecar["livenessProbe"];
        let patience = liveness["periodSeconds"].as_u64().zip(liveness["failureThreshold"].as_u64());
        assert!(patience.is_some_and(|(period, failures)| period * failures >= 30), "{name}: livenessProbe");
        assert_eq!(app["readinessProbe"], Value::Null, "{name}: the sidecar owns readiness");
        let native = name == "deployment-native.yaml";
        assert_eq!(sidecar["restartPolicy"] == "Always", native, "{name}");
        assert_eq!(pod(name)["enableServiceLinks"], false, "{name}");
    }
}

/// A metrics page with a series of everything whose labels are a closed set.
fn page() -> String {
    let phases = Phase::ALL.map(Phase::name);
    let transitions = Transition::POSSIBLE.map(|(from, to, cause)| (from.name(), to.name(), cause.name()));
    let metrics =
        Metrics::new(Sets { version: "1", revision: "2", phases: &phases, transitions: &transitions });
    metrics.checks(&[CheckSeries { name: "warm", kind: "warmup", warmup_quantiles: &[0.95], guarded: true }]);
    metrics.render()
}

#[test]
fn alerts_ask_for_metrics_and_values_of_labels_that_exist() {
    let page = page();
    let rules = json(&read("prometheus-rules.yaml")[0]);
    let groups = rules["spec"]["groups"].as_array().expect("groups").clone();
    let rules: Vec<&Value> =
        groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect();
    let selector = Regex::new(r"(readygate_[a-z_]+)(?:\{([^}]*)\})?").expect("an expression");
    let matcher = Regex::new(r#"([a-z]+)\s*(=~|!~|!=|=)\s*"([^"]*)""#).expect("an expression");
    let mut seen = BTreeSet::new();
    for rule in &rules {
        let alert = rule["alert"].as_str().expect("a name");
        for found in selector.captures_iter(rule["expr"].as_str().expect("text")) {
            let name = &found[1];
            seen.insert(name.to_owned());
            let family = FAMILIES.iter().find(|family| family.name == name);
            let family = family.unwrap_or_else(|| panic!("{alert}: there is no metric {name}"));
            for pair in matcher.captures_iter(found.get(2).map_or("", |labels| labels.as_str())) {
                assert!(family.labels.contains(&&pair[1]), "{alert}: {name} has no label {}", &pair[1]);
                for value in pair[3].split('|') {
                    let label = format!("{}=\"{value}\"", &pair[1]);
                    let exists = page.lines().any(|line| line.starts_with(name) && line.contains(&label));
                    assert!(exists, "{alert}: {name} never has {label}");
                }
            }
        }
    }
    assert!(rules.len() >= 4 && seen.len() >= 4, "saw only {} rules and {seen:?}", rules.len());
}

#[test]
fn promtool_accepts_the_rules() {
    if Command::new("promtool").arg("--version").output().is_err() {
        return machine::skip("promtool is missing (Debian package prometheus): it judges the alert rules");
    }
    let rules = read("prometheus-rules.yaml").remove(0);
    let mut text = String::new();
    YamlEmitter::new(&mut text).dump(&rules["spec"]).expect("rules can be written");
    let scratch = Scratch::new();
    let file = scratch.join("rules.yaml");
    fs::write(&file, text).expect("the directory is writable");
    let said = Command::new("promtool").args(["check", "rules"]).arg(&file).output().expect("it runs");
    let said = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.contains("SUCCESS: 6 rules found"), "{said}");
}
