//! Sessions: live, expired, resumed, and of other users.

use conversation_memory::proto::{
    CreateSessionRequest, EndSessionRequest, ExtendSessionRequest, GetHistoryRequest,
    GetSessionRequest, ListSessionsRequest, SaveMessagesRequest, Session, SessionState,
};
use tonic::{Code, Status};

use test_support::{
    eventually, new_id, new_user,
    requests::{
        begin, contents, history, new_conversation, reason, rejected_field, save, save_text, turn,
    },
    sidecar::{Form, Sessions, Sidecar},
};

test_support::in_both_forms!(
    creates_reads_extends_lists_and_ends_sessions,
    an_expired_session_is_not_found_and_can_resume,
    use_renews_a_session,
    sessions_of_other_users_are_not_found,
    an_unknown_session_resumes_on_the_given_conversation,
    a_session_moves_to_the_given_conversation,
    a_session_without_conversation_gets_one,
    another_users_use_of_a_session_id_changes_nothing,
    sessions_are_listed_in_pages,
);

/// Session TTL of 1.5 seconds: long enough for some calls, and short enough to wait for.
const SHORT: [(&str, &str); 1] = [("SESSION_TTL_MINUTES", "0.025")];

async fn creates_reads_extends_lists_and_ends_sessions(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut sessions = sidecar.sessions();
    let user = new_user();
    let request = CreateSessionRequest {
        user_id: user.clone(),
        dept_id: "hr".to_owned(),
        ..CreateSessionRequest::default()
    };
    let created = sessions.create_session(request.clone()).await.unwrap();
    let created = created.into_inner().session.unwrap();
    assert_eq!((&created.user_id, created.dept_id.as_str()), (&user, "hr"));
    let second = sessions.create_session(request).await.unwrap();
    let second = second.into_inner().session.unwrap();
    assert_eq!(get(&mut sessions, &created.id).await.unwrap(), created);

    let request = ExtendSessionRequest {
        session_id: created.id.clone(),
        ..ExtendSessionRequest::default()
    };
    let extended = sessions.extend_session(request).await.unwrap();
    let extended = extended.into_inner().session.unwrap();
    assert!(nanos(extended.expires_at) >= nanos(created.expires_at));

    assert_eq!(
        list(&mut sessions, &user).await,
        [&*created.id, &*second.id]
    );
    let end = EndSessionRequest {
        session_id: created.id.clone(),
        ..EndSessionRequest::default()
    };
    sessions.end_session(end.clone()).await.unwrap();
    let ended = sessions.end_session(end).await.unwrap_err();
    assert_eq!(reason(&ended), "SESSION_EXPIRED_OR_UNKNOWN");
    let ended = get(&mut sessions, &created.id).await.unwrap_err();
    assert_eq!(ended.code(), Code::NotFound);
    assert_eq!(list(&mut sessions, &user).await, [&*second.id]);
}

async fn an_expired_session_is_not_found_and_can_resume(form: Form) {
    let sidecar = Sidecar::start_with(&form, &SHORT).await;
    let (mut memory, mut sessions) = (sidecar.memory(), sidecar.sessions());
    let user = new_user();
    let begun = memory.begin_turn(begin(&user)).await.unwrap().into_inner();
    let session = begun.session.unwrap().id;
    let conversation = begun.conversation.unwrap().id;
    let saved = save(&conversation, turn("What is it?", "A policy."));
    memory.save_messages(saved).await.unwrap();
    expiry(&mut sessions, &session).await;
    let expired = get(&mut sessions, &session).await.unwrap_err();
    assert_eq!(expired.code(), Code::NotFound);
    assert_eq!(reason(&expired), "SESSION_EXPIRED_OR_UNKNOWN");

    let mut request = begin(&user);
    request.session_id.clone_from(&session);
    let resumed = memory.begin_turn(request.clone()).await.unwrap();
    let resumed = resumed.into_inner();
    assert_eq!(resumed.session_state(), SessionState::Resumed);
    assert_eq!(resumed.session.unwrap().id, session);
    assert_eq!(resumed.conversation.unwrap().id, conversation);
    assert_eq!(contents(&resumed.messages), ["What is it?", "A policy."]);
    let continued = memory.begin_turn(request).await.unwrap().into_inner();
    assert_eq!(continued.session_state(), SessionState::Continued);
}

async fn use_renews_a_session(form: Form) {
    let sidecar = Sidecar::start_with(&form, &SHORT).await;
    let (mut memory, mut sessions) = (sidecar.memory(), sidecar.sessions());
    let user = new_user();
    let begun = memory.begin_turn(begin(&user)).await.unwrap().into_inner();
    let session = begun.session.unwrap();
    let conversation = begun.conversation.unwrap().id;
    // Reads and saves that name the session renew it beyond its first expiry.
    let first_end = nanos(session.expires_at);
    eventually("the first expiry has passed", async || {
        let read = GetHistoryRequest {
            session_id: session.id.clone(),
            ..history(&conversation)
        };
        memory.get_history(read).await.unwrap();
        let save = SaveMessagesRequest {
            session_id: session.id.clone(),
            ..save(&conversation, turn("one", "two"))
        };
        memory.save_messages(save).await.unwrap();
        let live = get(&mut sessions, &session.id).await.unwrap();
        nanos(live.last_active_at) > first_end
    })
    .await;
}

async fn sessions_of_other_users_are_not_found(form: Form) {
    let sidecar = Sidecar::start_with(&form, &SHORT).await;
    let (mut memory, mut sessions) = (sidecar.memory(), sidecar.sessions());
    let begun = memory.begin_turn(begin(&new_user())).await.unwrap();
    let session = begun.into_inner().session.unwrap().id;
    let mut try_it = async |session: &str| {
        let mut request = begin("somebody-else");
        session.clone_into(&mut request.session_id);
        memory.begin_turn(request).await.unwrap_err()
    };
    let unknown = new_id();
    let missing = try_it(&unknown).await;
    assert_eq!(missing.code(), Code::NotFound);
    let details =
        |status: &Status, id: &str| String::from_utf8_lossy(status.details()).replace(id, "<id>");
    let live = try_it(&session).await;
    assert_eq!(live.message(), missing.message());
    assert_eq!(details(&live, &session), details(&missing, &unknown));
    expiry(&mut sessions, &session).await;
    let expired = try_it(&session).await;
    assert_eq!(details(&expired, &session), details(&missing, &unknown));
}

async fn an_unknown_session_resumes_on_the_given_conversation(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let mut request = begin(&user);
    request.conversation_id = new_conversation(&mut memory, &user).await;
    request.session_id = new_id();
    let begun = memory
        .begin_turn(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(begun.session_state(), SessionState::Resumed);
    let session = begun.session.unwrap();
    assert_eq!(session.id, request.session_id);
    assert_eq!(session.conversation_id, request.conversation_id);
    // It does not resume on a conversation of another user.
    let mut foreign = begin(&new_user());
    foreign.conversation_id = request.conversation_id;
    foreign.session_id = new_id();
    let refused = memory.begin_turn(foreign).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

async fn a_session_moves_to_the_given_conversation(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let begun = memory.begin_turn(begin(&user)).await.unwrap().into_inner();
    let other = new_conversation(&mut memory, &user).await;
    save_text(&mut memory, &other, "over here").await;
    let mut request = begin(&user);
    request.session_id = begun.session.unwrap().id;
    request.conversation_id.clone_from(&other);
    let moved = memory
        .begin_turn(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(moved.session_state(), SessionState::Continued);
    assert_eq!(moved.session.unwrap().conversation_id, other);
    request.conversation_id.clear();
    let stayed = memory.begin_turn(request).await.unwrap().into_inner();
    assert_eq!(stayed.conversation.unwrap().id, other);
    assert_eq!(contents(&stayed.messages), ["over here"]);
}

async fn a_session_without_conversation_gets_one(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let (mut memory, mut sessions) = (sidecar.memory(), sidecar.sessions());
    let user = new_user();
    let request = CreateSessionRequest {
        user_id: user.clone(),
        ..CreateSessionRequest::default()
    };
    let created = sessions.create_session(request.clone()).await.unwrap();
    let mut turn = begin(&user);
    turn.session_id = created.into_inner().session.unwrap().id;
    let begun = memory.begin_turn(turn.clone()).await.unwrap().into_inner();
    assert_eq!(begun.session_state(), SessionState::Continued);
    let again = memory.begin_turn(turn).await.unwrap().into_inner();
    assert_eq!(
        again.conversation.unwrap().id,
        begun.conversation.unwrap().id
    );
    // A session cannot have a conversation of another user.
    let foreign = CreateSessionRequest {
        conversation_id: new_conversation(&mut memory, &new_user()).await,
        ..request
    };
    let refused = sessions.create_session(foreign).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

/// Another user uses the session's id in every call that can note it.
async fn use_session(sidecar: &Sidecar, user: &str, session: &str) {
    let (mut memory, mut sessions) = (sidecar.memory(), sidecar.sessions());
    let own = new_conversation(&mut memory, user).await;
    let mut turn_request = begin(user);
    session.clone_into(&mut turn_request.session_id);
    let mut saved = save(&own, turn("one", "two"));
    session.clone_into(&mut saved.session_id);
    memory.save_messages(saved).await.unwrap();
    turn_request.conversation_id.clone_from(&own);
    let begun = memory.begin_turn(turn_request.clone()).await.unwrap();
    let begun = begun.into_inner();
    // The response is that for an unknown id.
    assert_eq!(begun.session.unwrap().user_id, user);
    turn_request.conversation_id.clear();
    let begun = memory.begin_turn(turn_request).await.unwrap().into_inner();
    assert_eq!(begun.conversation.unwrap().id, own);
    let read = GetHistoryRequest {
        session_id: session.to_owned(),
        ..history(&own)
    };
    memory.get_history(read).await.unwrap();
    let extend = ExtendSessionRequest {
        session_id: session.to_owned(),
        user_id: user.to_owned(),
    };
    sessions.extend_session(extend).await.unwrap();
}

async fn another_users_use_of_a_session_id_changes_nothing(form: Form) {
    let sidecar = Sidecar::start_with(&form, &SHORT).await;
    let (mut memory, mut sessions) = (sidecar.memory(), sidecar.sessions());
    let (user, other) = (new_user(), new_user());
    let own = new_conversation(&mut memory, &user).await;
    for interference in [
        "none",
        "while it lives",
        "after it expired",
        "both",
        "before it exists",
    ] {
        let request = CreateSessionRequest {
            user_id: user.clone(),
            ..CreateSessionRequest::default()
        };
        // In the last case, the user chooses an id that the other user has used.
        let session = if interference == "before it exists" {
            let chosen = new_id();
            use_session(&sidecar, &other, &chosen).await;
            chosen
        } else {
            let created = sessions.create_session(request).await.unwrap();
            created.into_inner().session.unwrap().id
        };
        if ["while it lives", "both"].contains(&interference) {
            use_session(&sidecar, &other, &session).await;
        }
        eventually("the session expires", async || {
            let found = get_as(&mut sessions, &session, &user).await;
            found.is_err_and(|error| error.code() == Code::NotFound)
        })
        .await;
        if ["after it expired", "both"].contains(&interference) {
            use_session(&sidecar, &other, &session).await;
        }
        let mut mine = begin(&user);
        mine.session_id.clone_from(&session);
        let unknown = memory.begin_turn(mine.clone()).await.unwrap_err();
        assert_eq!(
            reason(&unknown),
            "SESSION_EXPIRED_OR_UNKNOWN",
            "{interference}"
        );
        mine.conversation_id.clone_from(&own);
        let resumed = memory.begin_turn(mine.clone()).await.unwrap().into_inner();
        assert_eq!(
            resumed.session_state(),
            SessionState::Resumed,
            "{interference}"
        );
        let resumed = resumed.session.unwrap();
        assert_eq!((&resumed.id, &resumed.user_id), (&session, &user));
        let mut saved = save(&own, turn("three", "four"));
        saved.session_id.clone_from(&session);
        memory.save_messages(saved).await.unwrap();

        // The session is recorded for its user, whatever the other user records afterwards.
        use_session(&sidecar, &other, &session).await;
        mine.conversation_id.clear();
        for state in [SessionState::Continued, SessionState::Resumed] {
            let begun = memory.begin_turn(mine.clone()).await.unwrap().into_inner();
            assert_eq!(begun.session_state(), state, "{interference}");
            assert_eq!(begun.conversation.unwrap().id, own);
            let end = EndSessionRequest {
                session_id: session.clone(),
                user_id: user.clone(),
            };
            sessions.end_session(end).await.unwrap();
        }
        let theirs = get_as(&mut sessions, &session, &other).await;
        assert!(theirs.is_ok(), "{interference}");
    }
}

async fn sessions_are_listed_in_pages(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[("MAX_SESSIONS_PER_USER", "50")]).await;
    let mut sessions = sidecar.sessions();
    let user = new_user();
    let mut created = Vec::new();
    for _ in 0..55 {
        let request = CreateSessionRequest {
            user_id: user.clone(),
            ..CreateSessionRequest::default()
        };
        let session = sessions.create_session(request).await.unwrap();
        created.push(session.into_inner().session.unwrap().id);
    }
    created.reverse();
    let mut request = ListSessionsRequest {
        user_id: user.clone(),
        ..ListSessionsRequest::default()
    };
    let mut listed = Vec::new();
    for length in [20, 20, 10] {
        let page = sessions.list_sessions(request.clone()).await.unwrap();
        let page = page.into_inner();
        assert_eq!(page.sessions.len(), length);
        listed.extend(page.sessions.into_iter().map(|session| session.id));
        request.page_token = page.next_page_token;
    }
    assert_eq!(request.page_token, "");
    assert_eq!(listed, created[..50], "the oldest sessions have ended");

    request.page_size = 1_000;
    let all = sessions.list_sessions(request.clone()).await.unwrap();
    assert_eq!(all.into_inner().sessions.len(), 50);
    request.page_size = 49;
    let page = sessions.list_sessions(request.clone()).await.unwrap();
    request.page_token = page.into_inner().next_page_token;
    let last = sessions.list_sessions(request.clone()).await.unwrap();
    assert_eq!(last.into_inner().sessions[0].id, created[49]);
    request.user_id = new_user();
    let refused = sessions.list_sessions(request.clone()).await.unwrap_err();
    assert_eq!(rejected_field(&refused), "page_token");
    request.page_token.clear();
    request.page_size = -1;
    let refused = sessions.list_sessions(request).await.unwrap_err();
    assert_eq!(rejected_field(&refused), "page_size");
}

async fn get_as(sessions: &mut Sessions, id: &str, user: &str) -> Result<Session, Status> {
    let request = GetSessionRequest {
        session_id: id.to_owned(),
        user_id: user.to_owned(),
    };
    let found = sessions.get_session(request).await?;
    Ok(found.into_inner().session.unwrap())
}

async fn get(sessions: &mut Sessions, id: &str) -> Result<Session, Status> {
    let request = GetSessionRequest {
        session_id: id.to_owned(),
        ..GetSessionRequest::default()
    };
    let found = sessions.get_session(request).await?;
    Ok(found.into_inner().session.unwrap())
}

async fn list(sessions: &mut Sessions, user: &str) -> Vec<String> {
    let request = ListSessionsRequest {
        user_id: user.to_owned(),
        ..ListSessionsRequest::default()
    };
    let listed = sessions.list_sessions(request).await.unwrap();
    let listed = listed.into_inner().sessions;
    listed.into_iter().map(|session| session.id).collect()
}

async fn expiry(sessions: &mut Sessions, session: &str) {
    eventually("the session expires", async || {
        get(sessions, session).await.is_err()
    })
    .await;
}

fn nanos(at: Option<prost_types::Timestamp>) -> (i64, i32) {
    at.map(|at| (at.seconds, at.nanos)).unwrap()
}
