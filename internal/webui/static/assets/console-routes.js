// The console's views. A view is a module that is loaded when it is first opened. It exports View,
// which gets {path, params, query, navigate, can}:
//
// - path is the address without its query, and params has its parts that begin with a colon here;
// - query is a URLSearchParams of the address;
// - navigate(address, {replace}) opens another address of the console;
// - can(scope) is true if the account may use the routes of the API with this scope.
//
// scope is what one needs to open a view: without it, the view isn't in the navigation. A route
// with nav is in the navigation under this name, in the order of this list. styles names the style
// sheets of a view, which are in the template of ops.html.

export const routes = [
  {
    path: "/ops",
    nav: "Overview",
    title: "Overview",
    scope: "inventory:read",
    load: () => import("/assets/ops-overview.js"),
  },
  {
    path: "/ops/holds",
    nav: "Holds",
    title: "Holds",
    scope: "inventory:read",
    styles: ["ops-holds", "ops-stock"],
    load: () => import("/assets/ops-holds.js"),
  },
  {
    path: "/ops/holds/:id",
    title: "Hold",
    scope: "inventory:read",
    styles: ["ops-holds", "ops-stock"],
    load: () => import("/assets/ops-hold.js"),
  },
  {
    path: "/ops/stock",
    nav: "Stock",
    title: "Stock",
    scope: "inventory:read",
    styles: ["ops-holds", "ops-stock"],
    load: () => import("/assets/ops-stock.js"),
  },
  {
    path: "/ops/stock/:productId/:warehouseId",
    title: "Stock",
    scope: "inventory:read",
    styles: ["ops-holds", "ops-stock"],
    load: () => import("/assets/ops-stock-row.js"),
  },
  {
    path: "/ops/import",
    nav: "Import",
    title: "Import",
    scope: "inventory:write",
    styles: ["import"],
    load: () => import("/assets/import-view.js"),
  },
  {
    path: "/ops/events",
    nav: "Events",
    title: "Events",
    scope: "events:read",
    styles: ["ops-events"],
    load: () => import("/assets/ops-events.js"),
  },
  {
    path: "/ops/webhooks",
    nav: "Webhooks",
    title: "Webhooks",
    scope: "events:read",
    styles: ["ops-events"],
    load: () => import("/assets/ops-webhooks.js"),
  },
];

// match returns {route, params} of a path, or null.
export function match(path) {
  const parts = path.split("/");
  for (const route of routes) {
    const wanted = route.path.split("/");
    const isMatch =
      wanted.length === parts.length &&
      wanted.every((part, i) => (part.startsWith(":") ? parts[i] !== "" : part === parts[i]));
    if (isMatch) {
      const named = wanted.flatMap((part, i) =>
        part.startsWith(":") ? [[part.slice(1), decode(parts[i])]] : [],
      );
      return { route, params: Object.fromEntries(named) };
    }
  }
  return null;
}

// decode undoes the escapes of a part of a path. A part with a broken escape stays as it is.
function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// navigation lists the views that are in the navigation.
export const navigation = () => routes.filter((route) => route.nav);

// isWithin is true if a path is the route's, or below it. Every path is below the overview's, so
// that one is only within itself.
export const isWithin = (path, route) =>
  path === route.path || (route.path !== "/ops" && path.startsWith(`${route.path}/`));
