// Sign-in to the console: OpenID Connect, authorization code with PKCE.
//
// The tokens live in this module's memory alone: no other page, no other tab and no later user of
// this browser has them. They are renewed by the refresh token, which is in memory too: the
// issuer's own page can't be framed, and browsers withhold its cookies from a frame. After a reload
// the console goes to the issuer and back without a question, while the issuer's session lasts.
// The browser stores only that somebody has signed in here, and during the way to the issuer what
// proves that the answer is to this tab's question.

import { parse, storage } from "./api.js";
import { settings } from "./settings.js";

const CALLBACK = "/ops/signed-in";
const HOME = "/ops";
const TIMEOUT = 10_000; // ms for a call to the issuer
const ASKED = "ops.sign-in"; // sessionStorage: the question of the sign-in under way
const FLAG = "ops.signed-in"; // localStorage: somebody has signed in here, and not out
const LONG_LIFE = 3600; // s: how long a token counts as valid whose issuer doesn't say

// session is what the pages may know: {state, account, problem}. state is
// - "loading": the settings aren't known yet;
// - "starting": on the way to the issuer or back;
// - "off": the API asks nobody for permission;
// - "closed": the API asks for permission, and this console has no issuer to get it from;
// - "out": nobody is signed in, and problem is a warning or empty;
// - "in": account is signed in, {name, group};
// - "ended": the sign-in of account has ended, and can't be renewed;
// - "failed": problem says why the sign-in failed.
let session = { state: "loading" };
const listeners = new Set();

// What must not leave this module.
let oauth, issuer, client, options;
let tokens = null; // {access, refresh, id, ends, renews}
let scopes = new Set(); // of the account, also after its sign-in has ended
let renewing = null;

// Other tabs learn that somebody has signed out.
const channel = "BroadcastChannel" in window ? new BroadcastChannel("ops") : null;
channel?.addEventListener("message", ({ data }) => {
  if (data === "signed-out" && tokens) {
    forget();
    become({ state: "out" });
  }
});

// The Back button may bring this page back as it was when it left for the issuer.
addEventListener("pageshow", (event) => {
  if (event.persisted && session.state === "starting") {
    become({ state: "out" });
  }
});

export const currentSession = () => session;

// onSession calls listener after each change of the session, until the returned function is called.
export function onSession(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function become(next) {
  session = next;
  listeners.forEach((listener) => listener());
}

// begin finds out who is here. It may leave the page for the issuer, and then never resolves. It
// calls onBack when the person is back from the issuer, and the address is that of before.
export async function begin(onBack = () => {}) {
  become({ state: "loading" });
  let known;
  try {
    known = await settings();
  } catch (error) {
    become({ state: "failed", problem: problemOf(error, "shop") });
    return;
  }
  if (!known.signIn) {
    become({ state: known.auth ? "closed" : "off" });
  } else if (location.pathname === CALLBACK) {
    become({ state: "starting" });
    await finish(onBack);
  } else if (local()?.getItem(FLAG)) {
    await ask("none");
  } else {
    become({ state: "out" });
  }
}

// signIn goes to the issuer, which comes back to this address.
export const signIn = () => ask("");

// ask leaves for the issuer. With the prompt "none" the issuer answers at once, without a question.
async function ask(prompt) {
  become({ state: "starting" });
  try {
    issuer = undefined; // an issuer that is down now would be an error page of the browser
    await discover();
    const { signIn: known } = await settings();
    const question = {
      state: oauth.generateRandomState(),
      nonce: oauth.generateRandomNonce(),
      verifier: oauth.generateRandomCodeVerifier(),
      back: location.pathname + location.search,
    };
    const target = new URL(issuer.authorization_endpoint);
    const query = {
      client_id: client.client_id,
      redirect_uri: location.origin + CALLBACK,
      response_type: "code",
      scope: wantedScopes(known),
      ...(known.audience && { audience: known.audience }),
      state: question.state,
      nonce: question.nonce,
      code_challenge: await oauth.calculatePKCECodeChallenge(question.verifier),
      code_challenge_method: "S256",
      ...(prompt && { prompt }),
    };
    Object.entries(query).forEach(([name, value]) => target.searchParams.set(name, value));
    storage().setItem(ASKED, JSON.stringify(question));
    location.assign(target);
    await new Promise(() => {}); // the page ends here
  } catch (error) {
    local()?.removeItem(FLAG);
    become({ state: "failed", problem: problemOf(error) });
  }
}

// wantedScopes also asks for a refresh token, where the issuer has a scope for it.
function wantedScopes(known) {
  const offline = issuer.scopes_supported?.includes("offline_access") ? ["offline_access"] : [];
  return [...new Set([...known.scopes, ...offline])].join(" ");
}

// discover loads the client library, and the issuer's document. A later call does nothing.
async function discover() {
  if (issuer) {
    return;
  }
  const { signIn: known } = await settings();
  oauth ??= await import("oauth4webapi");
  const url = new URL(known.issuer);
  // The server's configuration takes plain http only to this machine.
  options = {
    [oauth.allowInsecureRequests]: url.protocol === "http:",
    signal: () => AbortSignal.timeout(TIMEOUT),
  };
  client = { client_id: known.clientId };
  const response = await oauth.discoveryRequest(url, { ...options, algorithm: "oidc" });
  issuer = await oauth.processDiscoveryResponse(url, response);
}

// finish reads the issuer's answer from the address, and goes back to where the person came from.
async function finish(onBack) {
  const answer = new URL(location.href);
  const question = parse(storage().getItem(ASKED));
  storage().removeItem(ASKED);
  const back = question?.back?.startsWith(HOME) && !question.back.startsWith(CALLBACK);
  history.replaceState(null, "", back ? question.back : HOME);
  onBack();
  if (!question) {
    become({ state: "out" });
    return;
  }
  try {
    await discover();
    const code = oauth.validateAuthResponse(issuer, client, answer, question.state);
    const response = await oauth.authorizationCodeGrantRequest(
      issuer,
      client,
      oauth.None(),
      code,
      location.origin + CALLBACK,
      question.verifier,
      options,
    );
    const granted = await oauth.processAuthorizationCodeResponse(issuer, client, response, {
      expectedNonce: question.nonce,
      requireIdToken: true,
    });
    keep(granted);
    local()?.setItem(FLAG, "1");
    become({ state: "in", account: accountOf(oauth.getValidatedIdTokenClaims(granted)) });
  } catch (error) {
    local()?.removeItem(FLAG);
    // Without a question the issuer answers so when its own session has ended.
    const isQuestion = /^(login|interaction|consent|account_selection)_required$/;
    become(
      isQuestion.test(error?.error)
        ? { state: "out" }
        : { state: "failed", problem: problemOf(error) },
    );
  }
}

function keep(granted) {
  const now = Date.now();
  const life = 1000 * (granted.expires_in ?? LONG_LIFE);
  const claims = claimsOf(granted.access_token);
  const granting = claims.scp ?? claims.scope ?? granted.scope ?? [];
  scopes = new Set(Array.isArray(granting) ? granting : granting.split(" "));
  tokens = {
    access: granted.access_token,
    refresh: granted.refresh_token ?? tokens?.refresh,
    id: granted.id_token ?? tokens?.id,
    ends: now + life,
    renews: now + (2 * life) / 3,
  };
}

// claimsOf reads an access token's claims. They decide only what the page shows: the API checks the
// token itself. An access token may be any text: then it has no claims.
function claimsOf(token) {
  try {
    const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(part), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return {};
  }
}

function accountOf(claims) {
  const name =
    claims.name ||
    claims.preferred_username ||
    claims.email ||
    claims["cognito:username"] ||
    claims.sub;
  const groups = claims["cognito:groups"] ?? claims.groups ?? [];
  return { name: String(name), group: [].concat(groups).join(", ") };
}

// token resolves to a valid access token, or to null where nobody is signed in. Two thirds through
// its life a token is renewed. While the issuer can't be reached, the old one serves to its end.
export async function token() {
  if (tokens && Date.now() >= tokens.renews) {
    await renew();
  }
  return tokens && Date.now() < tokens.ends ? tokens.access : null;
}

// renew gets another access token. Calls at the same time share one renewal, as a refresh token may
// be good for only one. It resolves to true if there is another token.
export function renew() {
  renewing ??= exchange().finally(() => (renewing = null));
  return renewing;
}

async function exchange() {
  const old = tokens;
  if (!old?.refresh) {
    return endIf(old && Date.now() >= old.ends);
  }
  try {
    const response = await oauth.refreshTokenGrantRequest(
      issuer,
      client,
      oauth.None(),
      old.refresh,
      options,
    );
    const granted = await oauth.processRefreshTokenResponse(issuer, client, response);
    if (tokens !== old) {
      return false; // somebody has signed out meanwhile
    }
    keep(granted);
    return true;
  } catch (error) {
    return endIf(tokens === old && (error?.error || Date.now() >= old.ends));
  }
}

// endIf ends the session where the issuer has refused to renew it, or its token has ended.
function endIf(isOver) {
  if (isOver) {
    tokens = null;
    become({ state: "ended", account: session.account });
  }
  return false;
}

// can reports whether the account may use the API's routes with a scope.
export function can(scope) {
  return session.state === "off" || scopes.has(scope);
}

// signOut forgets everything here, tells the other tabs, and ends the issuer's session.
export async function signOut() {
  const { refresh, id } = tokens ?? {};
  forget();
  local()?.removeItem(FLAG);
  clear();
  channel?.postMessage("signed-out");
  become({ state: "starting" });
  if ((await revoke(refresh)) && issuer.end_session_endpoint) {
    location.assign(endOf(issuer, client, id));
    return;
  }
  const problem = issuer?.end_session_endpoint
    ? "You are signed out here. The sign-in service can’t be reached, so it may still know you."
    : "";
  become({ state: "out", problem });
}

// clear empties this tab's store: it has requests that were sent and not answered.
function clear() {
  try {
    sessionStorage.clear();
  } catch {
    // The browser denies its store, so nothing is in it.
  }
}

// revoke withdraws the refresh token, where the issuer can. It resolves to false if the issuer
// can't be reached: then the browser would only show an error in place of the console.
async function revoke(refresh) {
  if (!refresh || !issuer.revocation_endpoint) {
    return Boolean(issuer);
  }
  try {
    await oauth.revocationRequest(issuer, client, oauth.None(), refresh, options);
    return true;
  } catch {
    return false;
  }
}

// endOf is the address that ends the issuer's session and comes back. Cognito takes other names
// than OpenID Connect's:
// https://docs.aws.amazon.com/cognito/latest/developerguide/logout-endpoint.html
function endOf(as, { client_id }, id) {
  const target = new URL(as.end_session_endpoint);
  const home = location.origin + HOME;
  const isCognito = new URL(as.issuer).hostname.startsWith("cognito-idp.");
  const query = isCognito
    ? { client_id, logout_uri: home }
    : { client_id, post_logout_redirect_uri: home, ...(id && { id_token_hint: id }) };
  Object.entries(query).forEach(([name, value]) => target.searchParams.set(name, value));
  return target;
}

function forget() {
  tokens = null;
  scopes = new Set();
}

// problemOf says in words why a sign-in failed.
function problemOf(error, what = "sign-in service") {
  if (error?.error) {
    return `The sign-in service refused: ${error.error_description || error.error}.`;
  }
  if (error?.name === "TypeError" || error?.name === "TimeoutError" || error?.name === "Error") {
    return `The ${what} can’t be reached.`;
  }
  return `The answer of the ${what} can’t be used.`;
}

// local returns the browser's localStorage, or null where it denies that.
function local() {
  try {
    return localStorage;
  } catch {
    return null;
  }
}
