// The deployment's settings for its pages.

const TIMEOUT = 12_000; // ms, as for a call to the API

let reading;

// settings resolves to {demo, auth, signIn}. demo is true for the demo shop. auth is true if the
// API asks its callers for permission. signIn is null, or {issuer, clientId, scopes, audience} of
// the OpenID Connect issuer of the console's accounts. After a failure the next call reads again.
export function settings() {
  reading ??= read().catch((error) => {
    reading = undefined;
    throw error;
  });
  return reading;
}

async function read() {
  const response = await fetch("/settings.json", { signal: AbortSignal.timeout(TIMEOUT) });
  if (!response.ok) {
    throw new Error(`The settings can’t be read (${response.status}).`);
  }
  return response.json();
}
