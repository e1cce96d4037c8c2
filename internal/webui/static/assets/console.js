// The console's shell: the navigation, the account, and the view at the address.

import { render } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { authorizeBy } from "./api.js";
import { begin, can, currentSession, onSession, renew, signIn, signOut, token } from "./auth.js";
import {
  go,
  here,
  leave,
  onPlace,
  Problem,
  refresh,
  restoreScroll,
  useTitle,
} from "./console-parts.js";
import { isWithin, match, navigation } from "./console-routes.js";
import { html } from "./parts.js";

// The drawings of the navigation, 16 units wide, by a view's name.
const ICONS = {
  Overview: "M2 13V8m4 5V3m4 10V6m4 7V9",
  Holds: "M4 2h8M4 14h8M5 2v2.5L8 8l3-3.5V2M5 14v-2.5L8 8l3 3.5V14",
  Stock: "M2 5l6-3 6 3v6l-6 3-6-3zM2 5l6 3 6-3M8 8v6",
  Import: "M8 2v8M4.5 7L8 10.5 11.5 7M2 13.5h12",
  Events: "M2 8h3l2-5 3 10 2-5h2",
  Webhooks: "M6 10L2.5 6.5 6 3M2.5 6.5H10a3.5 3.5 0 0 1 0 7H8",
};

const Icon = ({ of }) => html`
  <svg viewBox="0 0 16 16" aria-hidden="true"><path d=${ICONS[of] ?? "M3 8h10"} /></svg>`;

// useLatest is the newest value of a source that read returns and onChange tells changes of.
function useLatest(read, onChange) {
  const [value, set] = useState(read());
  useLayoutEffect(() => {
    set(read()); // it may have changed since the render
    return onChange(() => set(read()));
  }, []);
  return value;
}

function Console() {
  const session = useLatest(currentSession, onSession);
  const place = useLatest(here, onPlace);
  const isOpen = ["off", "in", "ended"].includes(session.state);
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <header class="console-head">
      <a class="brand" href="/ops"><${Mark} />Allo Operations</a>
      ${isOpen && html`<${Navigation} path=${place.path} />`}
      <${Account} session=${session} />
    </header>
    <main id="main" class="console-main" tabindex="-1">
      <${Notice} session=${session} />
      ${isOpen ? html`<${Page} place=${place} />` : html`<${Gate} session=${session} />`}
    </main>`;
}

const Mark = () => html`
  <svg viewBox="0 0 16 16" aria-hidden="true">
    <path d="M5 3h6v1.5L8.9 8 11 11.5V13H5v-1.5L7.1 8 5 4.5z" /></svg>`;

const Navigation = ({ path }) => html`
  <nav aria-label="Operations">
    <ul>
      ${navigation()
        .filter(({ scope }) => can(scope))
        .map((route) => html`
        <li key=${route.path}>
          <a href=${route.path} aria-current=${currentOf(path, route)}>
            <${Icon} of=${route.nav} />${route.nav}</a>
        </li>`)}
    </ul>
  </nav>`;

// currentOf is aria-current of a link: "page" for the view itself, "true" for one below it.
function currentOf(path, route) {
  if (path === route.path) {
    return "page";
  }
  return isWithin(path, route) ? "true" : undefined;
}

function Account({ session }) {
  const shop = html`<a href="/">Shop</a>`;
  if (!session.account) {
    return html`<p class="account">${shop}</p>`;
  }
  const { name, group } = session.account;
  return html`
    <p class="account">
      <span><b>${name}</b>${group && html`<small>${group}</small>`}</span>
      <button type="button" class="secondary" onClick=${signOut}>Sign out</button>
      ${shop}
    </p>`;
}

// Notice is above every view when the sign-in has ended, or is off.
function Notice({ session }) {
  if (session.state === "off") {
    return html`<p class="notice">Sign-in is off: anybody who reaches this page may use it.</p>`;
  }
  if (session.state === "ended") {
    return html`
      <p class="notice warning" role="alert">
        <span>Your sign-in has ended. What you see may be old.</span>
        <button type="button" onClick=${signIn}>Sign in again</button>
      </p>`;
  }
  return null;
}

// Gate takes the place of the views until somebody is signed in.
function Gate({ session }) {
  const gates = {
    loading: Loading, starting: Starting, out: SignedOut, failed: Failed, closed: Closed,
  };
  return html`<${gates[session.state]} problem=${session.problem} />`;
}

function Starting() {
  useTitle("Signing in");
  return html`<p class="blank" role="status">Signing you in…</p>`;
}

function SignedOut({ problem }) {
  useTitle("Sign in");
  return html`
    <section class="blank">
      <h1 tabindex="-1">Sign in to operations</h1>
      <p>${problem || "Holds, stock and imports are for the people who run the shop."}</p>
      <button type="button" onClick=${signIn}>Sign in</button>
    </section>`;
}

function Failed({ problem }) {
  useTitle("Sign-in failed");
  return html`
    <section class="blank" role="alert">
      <h1 tabindex="-1">You aren’t signed in</h1>
      <p>${problem}</p>
      <button type="button" onClick=${signInOrBegin}>Try again</button>
    </section>`;
}

// signInOrBegin tries again from where it failed: the settings may not be known yet.
async function signInOrBegin() {
  await begin();
  if (currentSession().state === "out") {
    await signIn();
  }
}

function Closed() {
  useTitle("Sign-in isn’t set up");
  return html`
    <section class="blank">
      <h1 tabindex="-1">Sign-in isn’t set up</h1>
      <p>The API asks for permission, and this console doesn’t know where to get it. Where the API
        takes tokens, deploy with <code>oidcClientId</code>, the console’s client at their issuer.
        On your own machine, set <code>OIDC_ISSUER</code> and <code>OIDC_CLIENT_ID</code>.</p>
    </section>`;
}

const sheets = new Map(); // by name: a promise that resolves when the style sheet is there

// style puts the style sheet of a view into the page. The page has it in a template, so that it is
// loaded with its view and not before. Without it a view is plain, and works.
function style(name) {
  if (!sheets.has(name)) {
    const { content } = document.getElementById("styles");
    const link = content.querySelector(`link[href*="/${name}."]`).cloneNode();
    sheets.set(
      name,
      new Promise((resolve) => {
        link.onload = resolve;
        link.onerror = () => {
          sheets.delete(name);
          resolve();
        };
        document.head.append(link);
      }),
    );
  }
  return sheets.get(name);
}

// Page shows the view of the address. The last view stays until the next one has been loaded.
function Page({ place }) {
  const found = match(place.path);
  const [loaded, setLoaded] = useState({ route: null });
  const [tries, setTries] = useState(0);
  useEffect(() => {
    let isCurrent = true;
    const show = (next) => isCurrent && setLoaded({ route: found?.route, place, ...next });
    if (!found) {
      show({ View: NotFound });
    } else if (!can(found.route.scope)) {
      show({ View: NotAllowed });
    } else {
      Promise.all([found.route.load(), ...(found.route.styles ?? []).map(style)]).then(
        ([{ View }]) => show({ View, params: found.params }),
        (error) => show({ error }),
      );
    }
    return () => (isCurrent = false);
  }, [place, tries]);

  if (loaded.error) {
    return html`<${Unloaded} onRetry=${() => setTries(tries + 1)} />`;
  }
  if (!loaded.View) {
    return html`<${Loading} />`;
  }
  return html`<${Shown} key=${loaded.place.path} ...${loaded} />`;
}

// Shown is a view with its title. A view that was navigated to gets the focus at its heading, so
// that a screen reader begins to read there.
function Shown({ View, route, place, params }) {
  const node = useRef();
  useTitle(route?.title ?? "Not found");
  useLayoutEffect(() => {
    if (place.isMoved) {
      const heading = node.current.querySelector("h1") ?? document.getElementById("main");
      heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
    }
  }, []);
  const isFirst = useRef(true);
  useLayoutEffect(() => {
    const isKept = isFirst.current || place.isBack;
    isFirst.current = false;
    return isKept ? restoreScroll(place) : undefined;
  }, [place.key]);
  return html`
    <div class="view" ref=${node}>
      <${View} path=${place.path} params=${params ?? {}} query=${place.query} navigate=${go}
        can=${can} />
    </div>`;
}

// Loading is the same as in the page's HTML, so that nothing moves until the view has come. The
// style sheet shows the second text once the view is late.
const Loading = () => html`
  <div class="loading" role="status">
    <h1>Loading…</h1>
    <p class="late">This takes longer than usual. Check your connection, and${" "}
      <a href="" onClick=${reload}>load the page again</a>.</p>
  </div>`;

function reload(event) {
  event.preventDefault();
  location.reload();
}

const NotFound = ({ path }) => html`
  <section class="blank">
    <h1>There is no such page</h1>
    <p>Nothing is at <code>${path}</code>. Check the address for a typing error.</p>
    <a role="button" href="/ops">Go to the overview</a>
  </section>`;

function NotAllowed({ path }) {
  const { route } = match(path);
  const first = navigation().find(({ scope }) => can(scope));
  return html`
    <section class="blank">
      <h1>Your account can’t open this page</h1>
      <p>“${route.title}” needs the permission <code>${route.scope}</code>. Ask whoever manages the
        accounts.</p>
      ${first && html`<a role="button" href=${first.path}>Go to ${first.nav}</a>`}
    </section>`;
}

const Unloaded = ({ onRetry }) => html`
  <h1>This page couldn’t be loaded</h1>
  <${Problem} text="The shop can’t be reached." onRetry=${onRetry} />`;

// A click on a link of the console opens it here. With a modifier or another button, or for another
// page, the browser does what it does with any link.
function follow(event) {
  const link = event.target.closest?.("a[href]");
  const isPlain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey);
  if (!link || !isPlain || event.altKey || event.defaultPrevented || link.target) {
    return;
  }
  const url = new URL(link.href);
  const isOurs = url.origin === location.origin && /^\/ops(\/|$)/.test(url.pathname);
  if (isOurs && !link.hasAttribute("download") && !url.hash) {
    event.preventDefault();
    go(url.pathname + url.search);
  }
}

authorizeBy({ token, renew });
history.scrollRestoration = "manual";
document.addEventListener("click", follow);
// On the way to the issuer nothing is kept: somebody may just have signed out. Before the settings
// are known there is nothing to keep.
addEventListener("pagehide", () =>
  ["loading", "starting"].includes(currentSession().state) || leave());
const root = document.getElementById("console");
begin(refresh);
root.replaceChildren();
render(html`<${Console} />`, root);
