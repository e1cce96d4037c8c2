// Command cost says what the service costs on AWS: a month of an idle stack, and a million
// reservations at a rate. It multiplies measures of this checkout (measures.json) with a price list
// (prices.json) and writes infra/COST.md.
//
//	cost                     writes the page from the two files
//	cost -measure -dev FILE -prod FILE
//	                         measures first: it runs the built functions behind the Lambda Runtime
//	                         API on an embedded Postgres, and reads two synthesized templates
//
// `make cost` does the first and `make cost-measure` the second.
package main
