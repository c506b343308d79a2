//! Encodings of databases and sessions.

use conversation_memory::store::{SchemaError, Store as _, StoreError, postgres::PostgresStore};
use sqlx::{AssertSqlSafe, ConnectOptions as _, raw_sql};

use test_support::store_fixture::{
    StoreFixture, at, new_conversation, owned_ref, server_options, user,
};

/// Text in scripts and planes that other encodings lack.
const TEXT: &str = "Größe Ⱥ 日本語 हिन्दी عربى 🎈 \u{10FFFF}";

/// Creates a database, and returns its name.
async fn database(name: &str, options: &str) -> String {
    let name = format!("encoding_{name}_{}", std::process::id());
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 {options}");
    execute(&create).await;
    name
}

async fn execute(statement: &str) {
    let mut connection = server_options().connect().await.unwrap();
    let statement = raw_sql(AssertSqlSafe(statement.to_owned()));
    statement.execute(&mut connection).await.unwrap();
}

#[tokio::test]
async fn database_of_another_encoding_is_rejected() {
    for encoding in [
        "SQL_ASCII",
        "LATIN1",
        "LATIN9",
        "EUC_JP",
        "EUC_TW",
        "WIN1252",
        "KOI8R",
    ] {
        let locale = "LC_COLLATE 'C' LC_CTYPE 'C'";
        let options = format!("ENCODING '{encoding}' {locale}");
        let name = database(&encoding.to_lowercase(), &options).await;
        let store = PostgresStore::new(server_options().database(&name), 2);
        for migrate in [true, false] {
            let rejected = store.prepare(migrate).await.unwrap_err();
            assert!(matches!(rejected, SchemaError::Encoding(_)), "{rejected:?}");
            let text = rejected.with_cause();
            assert!(text.contains(&format!("is {encoding}, this")), "{text}");
        }
        // The database can be replaced by another one while the program runs.
        let failed = store.create(&new_conversation(&user()), at(0)).await;
        assert!(
            matches!(failed, Err(StoreError::Unavailable(_))),
            "{failed:?}"
        );
        store.close().await;
        execute(&format!("DROP DATABASE {name}")).await;
    }
}

#[tokio::test]
async fn other_defaults_of_the_client_encoding_are_overridden() {
    let name = database("client", "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'").await;
    execute(&format!(
        "ALTER DATABASE {name} SET client_encoding = 'LATIN1'"
    ))
    .await;
    for options in [None, Some("SQL_ASCII"), Some("EUC_JP")] {
        let mut server = server_options().database(&name);
        if let Some(encoding) = options {
            server = server.options([("client_encoding", encoding)]);
        }
        let fixture = StoreFixture::prepared(PostgresStore::new(server, 2)).await;
        let new = new_conversation(&user());
        fixture.store.create(&new, at(0)).await.unwrap();
        let conversation = owned_ref(&new);
        fixture.append_texts(&conversation, &[TEXT]).await;
        assert_eq!(fixture.texts(&conversation).await, [TEXT]);
        fixture.store.close().await;
    }
    execute(&format!("DROP DATABASE {name}")).await;
}
