// The page of the API: Swagger UI shows the document that the service serves.

import { uuid } from "./api.js";

// Swagger UI's dark colours are under a class, and follow no media query by themselves.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

SwaggerUIBundle({
  url: "/api/openapi.json",
  domNode: document.getElementById("document"),
  deepLinking: true, // the address names the operation that is open
  defaultModelsExpandDepth: 0,
  validatorUrl: null, // it would send the document to another host
  requestInterceptor: (request) => {
    // Each try gets a random key, because whoever knows a key can get its answer.
    if (request.method === "POST") {
      request.headers["Idempotency-Key"] ||= uuid();
    }
    return request;
  },
});
