use super::*;
use crate::names::server::Server;

fn found(addresses: &[&str], seconds: u64) -> Family {
    let addresses = addresses.iter();
    let addresses = addresses.map(|one| one.parse().expect("address"));
    Family::Found(addresses.collect(), Duration::from_secs(seconds))
}

#[tokio::test]
async fn both_families_are_asked_for_and_the_shortest_time_of_a_chain_counts() {
    let server = Server::start().await;
    server.set("api.example.com.", 60, &["192.0.2.1", "192.0.2.2"]);
    server.set("api.example.com.", 30, &["2001:db8::1"]);
    server.set("four.example.com.", 20, &["192.0.2.4"]);
    server.alias("www.example.com.", 5, "four.example.com.");
    let asker = Asker::new(&server.config()).expect("servers");

    let Reply { v4, v6 } = asker.ask("api.example.com").await;
    assert_eq!(v4, found(&["192.0.2.1", "192.0.2.2"], 60));
    assert_eq!(v6, found(&["2001:db8::1"], 30));
    let alias = asker.ask("www.example.com").await;
    assert_eq!(
        (alias.v4, alias.v6),
        (found(&["192.0.2.4"], 5), Family::Nothing)
    );

    // Nothing between the table and the server keeps an answer.
    server.set("four.example.com.", 20, &["192.0.2.5"]);
    assert_eq!(
        asker.ask("four.example.com").await.v4,
        found(&["192.0.2.5"], 20)
    );
}

#[tokio::test]
async fn no_such_name_is_an_answer_and_a_refusal_is_none() {
    let server = Server::start().await;
    let asker = Asker::new(&server.config()).expect("servers");
    let Reply { v4, v6 } = asker.ask("gone.example.com").await;
    assert_eq!((v4, v6), (Family::Nothing, Family::Nothing));

    server.refuse(true);
    let Reply { v4, .. } = asker.ask("gone.example.com").await;
    assert!(
        matches!(&v4, Family::Failed(why) if why.starts_with("A: ")),
        "{v4:?}"
    );
}
