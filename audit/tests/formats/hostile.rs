//! What callers choose against the forms of a report.

use fieldkeep_audit::report::builder::Builder;
use fieldkeep_audit::report::overdue::{OverdueKey, OverdueKeys};
use fieldkeep_audit::report::{Basis, Range};
use fieldkeep_proto::v1::{AuditRecord, AuditResource, Decision};

use super::report::{DAY_US, FROM_US, json, text_of};

/// Records with what an attacker would put into every text.
fn planted(plant: &str) -> Vec<AuditRecord> {
    let text = |name: &str| format!("{plant}{name}");
    let record = |action: &str, method: &str, decision: Decision, code| AuditRecord {
        time_us: FROM_US + 5,
        principal: text("principal"),
        authentication: text("authentication"),
        address: text("address"),
        rpc: format!("{}/{method}{}", text("service"), text("method")),
        action: action.into(),
        decision: decision.into(),
        rule: text("rule"),
        code,
        reason: text("reason"),
        detail: text("detail"),
        credential: text("credential"),
        resources: vec![AuditResource {
            name: text("resource"),
            version: 1,
            field: text("field"),
            items: 1,
            item_hashes: text("item").into(),
        }],
        ..AuditRecord::default()
    };
    vec![
        record("decrypt", "Decrypt", Decision::Allowed, 0),
        record("encrypt", "Encrypt", Decision::Allowed, 0),
        record(&text("action"), "Melt", Decision::Refused, 7),
        record("grant", "CreateGrant", Decision::Allowed, 0),
        record("manage", "CreateKey", Decision::Allowed, 13),
    ]
}

#[test]
fn nothing_that_a_caller_chooses_becomes_markup() {
    let plant = "</title></pre></td><script>alert(1)</script>\" onload=\"x' onload='y<!--&lt;\u{202e}\x1b[31m\n";
    let mut builder = Builder::new(Range::new(FROM_US, FROM_US + DAY_US).unwrap());
    for (index, record) in (0..).zip(planted(plant)) {
        builder.add(index, &record);
    }
    let mut overdue = OverdueKeys::default();
    overdue.add(OverdueKey {
        due_us: FROM_US,
        name: format!("{plant}key"),
        reason: format!("{plant}why"),
    });
    let basis = Basis {
        log_id: [1; 16],
        checkpoint: format!("{plant}\ncheckpoint"),
    };
    let report = builder.finish(basis, overdue);

    let html = text_of(|out| report.write_html(out));
    for bad in ["<script", "<!--", "\u{202e}", "\x1b"] {
        assert!(!html.contains(bad), "{bad:?}");
    }
    assert!(
        html.contains(
            "&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&quot;x&#39; onload=&#39;y"
        )
    );
    // Every tag is one of ours, and none has an attribute that we do not write.
    for tag in html
        .split('<')
        .skip(1)
        .filter_map(|rest| rest.split_once('>'))
        .map(|(tag, _)| tag)
    {
        let name = tag.split([' ', '\n']).next().unwrap();
        let ours = "!DOCTYPE html head meta title style body header h1 h2 p pre main ul li strong figure \
                    figcaption svg line text rect section div table thead tr th tbody td footer";
        assert!(
            ours.split(' ')
                .any(|own| own == name.trim_start_matches('/')),
            "<{tag}>"
        );
        // Outside of quotes there is no attribute of an event.
        let bare: String = tag.split('"').step_by(2).collect();
        assert!(!bare.contains("onload"), "<{tag}>");
    }
    for sink in ["http:", "https:", "url(", "@import", " src=", " href="] {
        assert!(!html.contains(sink), "{sink} leads out of the page");
    }
    for name in [
        "principal",
        "method",
        "rule",
        "reason",
        "detail",
        "resource",
        "field",
        "action",
        "key",
        "why",
    ] {
        assert!(html.contains(&format!("\\u{{a}}{name}")), "{name} is shown");
    }

    let text = text_of(|out| report.write_text(out));
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    assert!(!text.contains('\u{202e}'));

    let json = json(&report);
    assert_eq!(json["overdue"]["rows"][0]["reason"], format!("{plant}why"));
    assert_eq!(
        json["grants"]["rows"][0]["detail"],
        format!("{plant}detail")
    );
}
