// The page of an address that no page has. It is a page of the shop, so it has the shop's header.

import { mountHeader } from "./header.js";

mountHeader();
