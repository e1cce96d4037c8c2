package httpapi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/allo/reservations/internal/app/webhooks"
	"github.com/allo/reservations/internal/events/outbox"
	"github.com/allo/reservations/internal/httpapi/openapi"
	"github.com/allo/reservations/internal/problem"
	"github.com/allo/reservations/internal/reservation"
	"github.com/allo/reservations/internal/route"
	"github.com/allo/reservations/internal/stock"
)

// loadDocument reads the document as it is served.
func loadDocument(t *testing.T) *openapi3.T {
	t.Helper()
	body, err := openapi.JSON()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(body)
	if err != nil {
		t.Fatalf("load the document: %v", err)
	}
	return doc
}

func TestDocumentIsValidWithItsExamples(t *testing.T) {
	t.Parallel()

	doc := loadDocument(t)

	if err := doc.Validate(
		t.Context(),
		openapi3.EnableExamplesValidation(),
		openapi3.EnableMultiError(),
	); err != nil {
		t.Errorf("the document is not valid: %v", err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") || doc.Info.Version == "" {
		t.Errorf(
			"openapi is %q and info.version %q, want 3.1.x and a version",
			doc.OpenAPI,
			doc.Info.Version,
		)
	}
	if len(doc.Servers) != 1 || doc.Servers[0].URL != "/" {
		t.Errorf("servers = %v, want the one at /", doc.Servers)
	}
}

// The control of the test above: the library does check examples.
func TestWrongExampleIsFound(t *testing.T) {
	t.Parallel()

	doc := loadDocument(t)
	content := doc.Components.Responses["Confirmed"].Value.Content["application/json"]
	example := content.Examples["confirmed"].Value
	example.Value.(map[string]any)["reservation"].(map[string]any)["status"] = "PENDING"

	if err := doc.Validate(t.Context(), openapi3.EnableExamplesValidation()); err == nil {
		t.Error("a confirm that answers PENDING is a valid example")
	}
}

// Callers without authorization share their keys. A page that fills in an example would make all of
// its users send the same key.
func TestNoIdempotencyKeyIsAnExample(t *testing.T) {
	t.Parallel()

	key := loadDocument(t).Components.Parameters["IdempotencyKey"].Value
	schema := key.Schema.Value
	if key.Example != nil || len(key.Examples) > 0 || schema.Example != nil ||
		len(schema.Examples) > 0 || schema.Default != nil {
		t.Errorf("the parameter Idempotency-Key has an example: %+v", key)
	}
}

func TestDocumentHasTheRoutesOfTheTable(t *testing.T) {
	t.Parallel()

	want := []string{"GET /api/openapi.json"} // package site serves it
	for _, r := range slices.Concat(route.API(), route.Direct()) {
		want = append(want, r.Key())
	}
	var got []string
	for path, item := range loadDocument(t).Paths.Map() {
		for method := range item.Operations() {
			got = append(got, method+" "+path)
		}
	}
	slices.Sort(want)
	slices.Sort(got)

	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the routes of the table (-) and the document (+) differ:\n%s", diff)
	}
}

func TestEveryRouteHasAHandler(t *testing.T) {
	t.Parallel()

	var want []string
	for _, r := range route.API() {
		want = append(want, r.Key())
	}
	slices.Sort(want)

	if diff := cmp.Diff(
		want,
		slices.Sorted(maps.Keys(New(nil, Options{}).handlers())),
	); diff != "" {
		t.Errorf("the routes of the table (-) and the handlers (+) differ:\n%s", diff)
	}
}

// dtos pairs each JSON type with its schemas. A request with two forms has two schemas.
var dtos = []struct {
	dto     any
	schemas []string
	request bool
}{
	{dto: productDTO{}, schemas: []string{"Product"}},
	{dto: stockDTO{}, schemas: []string{"Stock"}},
	{dto: warehouseDTO{}, schemas: []string{"Warehouse"}},
	{dto: healthDTO{}, schemas: []string{"Health"}},
	{dto: liveDTO{}, schemas: []string{"Live"}},
	{dto: authorizationDTO{}, schemas: []string{"LiveAuthorization"}},
	{dto: reservationDTO{}, schemas: []string{"Reservation"}},
	{dto: paymentDTO{}, schemas: []string{"Payment"}},
	{dto: itemDTO{}, schemas: []string{"Item"}},
	{dto: reservationAnswer{}, schemas: []string{"ReservationAnswer"}},
	{dto: holdAnswer{}, schemas: []string{"ReservationView"}},
	{dto: productRef{}, schemas: []string{"ProductRef"}},
	{dto: listedDTO{}, schemas: []string{"ListedReservation"}},
	{dto: statsDTO{}, schemas: []string{"Stats"}},
	{dto: holdStats{}, schemas: []string{"HoldStats"}},
	{dto: stockStats{}, schemas: []string{"StockStats"}},
	{dto: minuteDTO{}, schemas: []string{"Minute"}},
	{dto: hourDTO{}, schemas: []string{"Hour"}},
	{dto: sweepStats{}, schemas: []string{"SweepStats"}},
	{dto: auditResult{}, schemas: []string{"AuditResult"}},
	{dto: feedStats{}, schemas: []string{"FeedStats"}},
	{dto: sinkStats{}, schemas: []string{"SinkStats"}},
	{dto: problem.Problem{}, schemas: []string{"Problem"}},
	{dto: problem.Shortage{}, schemas: []string{"Shortage"}},
	{dto: problem.StockKey{}, schemas: []string{"StockKey"}},
	{dto: problem.Limit{}, schemas: []string{"Limit"}},
	{dto: productsAnswer{}, schemas: []string{"PutProductsAnswer"}},
	{dto: productResultDTO{}, schemas: []string{"ProductResult"}},
	{dto: warehousesAnswer{}, schemas: []string{"PutWarehousesAnswer"}},
	{dto: warehouseResultDTO{}, schemas: []string{"WarehouseResult"}},
	{dto: productsRequest{}, schemas: []string{"PutProductsRequest"}, request: true},
	{dto: productItemRequest{}, schemas: []string{"ProductItem"}, request: true},
	{dto: warehousesRequest{}, schemas: []string{"PutWarehousesRequest"}, request: true},
	{dto: warehouseItemRequest{}, schemas: []string{"WarehouseItem"}, request: true},
	{dto: itemRequest{}, schemas: []string{"ItemRequest"}, request: true},
	{
		dto:     reserveRequest{},
		schemas: []string{"ReserveLineRequest", "ReserveCartRequest"},
		request: true,
	},
	{dto: extendRequest{}, schemas: []string{"ExtendRequest"}, request: true},
	{dto: confirmRequest{}, schemas: []string{"ConfirmRequest"}, request: true},
	{dto: confirmAnswer{}, schemas: []string{"ConfirmAnswer"}},
	{dto: eraseRequest{}, schemas: []string{"EraseRequest"}, request: true},
	{dto: eraseAnswer{}, schemas: []string{"EraseAnswer"}},
	{
		dto:     paymentRequest{},
		schemas: []string{"StartPaymentRequest", "FailPaymentRequest"},
		request: true,
	},
	{dto: movementsRequest{}, schemas: []string{"MovementsRequest"}, request: true},
	{dto: movementLineRequest{}, schemas: []string{"MovementLineRequest"}, request: true},
	{dto: movementsAnswer{}, schemas: []string{"MovementsAnswer"}},
	{dto: movementDTO{}, schemas: []string{"Movement"}},
	{dto: problem.LineResult{}, schemas: []string{"LineResult"}},
	{dto: problem.LineProblem{}, schemas: []string{"LineProblem"}},
	{dto: returnRequest{}, schemas: []string{"ReturnRequest"}, request: true},
	{dto: returnLineRequest{}, schemas: []string{"ReturnLineRequest"}, request: true},
	{dto: returnAnswer{}, schemas: []string{"ReturnAnswer"}},
	{dto: returnedDTO{}, schemas: []string{"ReturnedLine"}},
	{dto: problem.Excess{}, schemas: []string{"Excess"}},
	{dto: stockRowDTO{}, schemas: []string{"StockRow"}},
	{dto: eventsAnswer{}, schemas: []string{"EventPage"}},
	{dto: transitionDTO{}, schemas: []string{"Transition"}},
	{dto: holdPaymentDTO{}, schemas: []string{"HoldPayment"}},
	{dto: listedReturnDTO{}, schemas: []string{"ListedReturn"}},
}

// field has the properties on which a type and a schema must agree.
type field struct {
	Type     string // of the value when it isn't null; #/... for a schema of its own
	Nullable bool
	Required bool
}

func TestSchemasAgreeWithTheTypes(t *testing.T) {
	t.Parallel()

	doc := loadDocument(t)
	for _, d := range dtos {
		t.Run(strings.Join(d.schemas, " or "), func(t *testing.T) {
			t.Parallel()

			want := fieldsOfType(t, reflect.TypeOf(d.dto), d.request)
			got := map[string]field{}
			for _, name := range d.schemas {
				schema := doc.Components.Schemas[name].Value
				maps.Copy(got, fieldsOfSchema(t, schema))
				if closed := schema.AdditionalProperties.Has != nil &&
					!*schema.AdditionalProperties.Has; closed != d.request {
					t.Errorf("schema %s refuses other fields: %t, want %t", name, closed, d.request)
				}
			}
			if d.request {
				// A pointer in a request tells a missing field from a zero. It says nothing about
				// required fields.
				for name, f := range got {
					got[name] = field{Type: f.Type}
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("type %T (-) and schemas %v (+) differ:\n%s", d.dto, d.schemas, diff)
			}
		})
	}
}

// Code decides which fields a request must have. limits_test.go checks that the document's schemas
// decide like the code.
func TestRequestsRequireTheFieldsOfTheContract(t *testing.T) {
	t.Parallel()

	doc := loadDocument(t)
	for name, want := range map[string][]string{
		"ReserveLineRequest":   {"productId", "warehouseId", "quantity"},
		"ReserveCartRequest":   {"items"},
		"ItemRequest":          {"productId", "warehouseId", "quantity"},
		"ExtendRequest":        {"ttlSeconds"},
		"ConfirmRequest":       nil,
		"EraseRequest":         {"owner"},
		"StartPaymentRequest":  {"paymentReference", "ttlSeconds"},
		"FailPaymentRequest":   {"paymentReference"},
		"PutProductsRequest":   {"items"},
		"ProductItem":          {"sku"},
		"PutWarehousesRequest": {"items"},
		"WarehouseItem":        {"code"},
		"ReturnRequest":        {"reference", "lines"},
		"ReturnLineRequest":    {"productId", "warehouseId", "quantity"},
	} {
		if diff := cmp.Diff(want, doc.Components.Schemas[name].Value.Required); diff != "" {
			t.Errorf("what %s requires, want (-) and got (+):\n%s", name, diff)
		}
	}
}

func fieldsOfType(t *testing.T, dto reflect.Type, request bool) map[string]field {
	t.Helper()
	fields := map[string]field{}
	for i := range dto.NumField() {
		f := dto.Field(i)
		if f.Anonymous { // its fields are written as if they were the struct's own
			maps.Copy(fields, fieldsOfType(t, f.Type, request))
			continue
		}
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		goType, pointers := f.Type, 0
		for ; goType.Kind() == reflect.Pointer; pointers++ {
			goType = goType.Elem()
		}
		if option != "" {
			pointers-- // the first tells an absent field from a null
		}
		fields[name] = field{
			Type:     typeName(t, goType, request, name),
			Nullable: pointers > 0 && !request,
			Required: option != "omitempty" && option != "omitzero" && !request,
		}
	}
	return fields
}

// typeName names the JSON type of a Go type.
func typeName(t *testing.T, goType reflect.Type, request bool, name string) string {
	t.Helper()
	switch goType {
	case reflect.TypeFor[uuid.UUID]():
		return "string uuid"
	case reflect.TypeFor[time.Time]():
		return "string date-time"
	case reflect.TypeFor[jsontext.Value](): // the outbox writes it
		return "Event"
	case reflect.TypeFor[limitOfUnits]():
		return "integer"
	}
	switch kind := goType.Kind(); {
	case kind == reflect.Int || kind == reflect.Int64:
		return "integer"
	case kind == reflect.Float64:
		return "number"
	case kind == reflect.Bool:
		return "boolean"
	// A request's id is read as a string first, so that an error can name the field.
	case kind == reflect.String && request && (strings.HasSuffix(name, "Id") || name == "replaces"):
		return "string uuid"
	case kind == reflect.String:
		return "string"
	case kind == reflect.Slice:
		return "array of " + typeName(t, goType.Elem(), request, name)
	case kind == reflect.Map:
		return "map of " + typeName(t, goType.Elem(), request, name)
	}
	for _, d := range dtos {
		if reflect.TypeOf(d.dto) == goType {
			return d.schemas[0]
		}
	}
	t.Fatalf("no schema can be told for the type %s", goType)
	return ""
}

func fieldsOfSchema(t *testing.T, schema *openapi3.Schema) map[string]field {
	t.Helper()
	fields := map[string]field{}
	for _, part := range schema.AllOf {
		maps.Copy(fields, fieldsOfSchema(t, part.Value))
	}
	for name, property := range schema.Properties {
		fields[name] = field{
			Type:     schemaTypeName(t, property),
			Nullable: nullable(property.Value),
			Required: slices.Contains(schema.Required, name),
		}
	}
	return fields
}

func nullable(schema *openapi3.Schema) bool {
	if schema.Type != nil {
		return schema.Type.Includes("null")
	}
	return slices.ContainsFunc(
		schema.AnyOf,
		func(s *openapi3.SchemaRef) bool { return nullable(s.Value) },
	)
}

// schemaTypeName is typeName for a schema.
func schemaTypeName(t *testing.T, ref *openapi3.SchemaRef) string {
	t.Helper()
	schema := ref.Value
	switch {
	case len(schema.AnyOf) == 2 && nullable(schema.AnyOf[1].Value):
		return schemaTypeName(t, schema.AnyOf[0])
	case schema.Type.Includes("array"):
		return "array of " + schemaTypeName(t, schema.Items)
	case schema.Type.Includes("object") && schema.AdditionalProperties.Schema != nil:
		return "map of " + schemaTypeName(t, schema.AdditionalProperties.Schema)
	case schema.Type.Includes("object"):
		return strings.TrimPrefix(ref.Ref, "#/components/schemas/")
	}
	types := slices.DeleteFunc(
		slices.Clone(*schema.Type),
		func(name string) bool { return name == "null" },
	)
	if schema.Format == "uuid" || schema.Format == "date-time" {
		types = append(types, schema.Format)
	}
	return strings.Join(types, " ")
}

// A type that is missing from dtos would go unchecked.
func TestEveryJSONTypeHasASchema(t *testing.T) {
	t.Parallel()

	var want []string
	for _, d := range dtos {
		want = append(want, reflect.TypeOf(d.dto).Name())
	}
	slices.Sort(want)

	if diff := cmp.Diff(jsonTypes(t), want); diff != "" {
		t.Errorf(
			"the package's types with JSON fields (-) and the checked ones (+) differ:\n%s",
			diff,
		)
	}
}

// jsonTypes names the structs of this package and of package problem that have a json tag.
func jsonTypes(t *testing.T) []string {
	t.Helper()
	var names []string
	files, err := fs.Glob(os.DirFS(".."), "httpapi/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(files, "problem/problem.go") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), "../"+name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok &&
				slices.ContainsFunc(s.Fields.List, hasJSONTag) {
				names = append(names, spec.Name.Name)
			}
			return true
		})
	}
	slices.Sort(names)
	return names
}

func hasJSONTag(
	f *ast.Field,
) bool {
	return f.Tag != nil && strings.Contains(f.Tag.Value, `json:"`)
}

// statusOfCode maps each code to the status that problemFor gives it, and those of the functions
// without a database to theirs.
func statusOfCode() map[string]int {
	errs := []error{
		&reservation.InvalidError{},
		&reservation.InsufficientStockError{},
		&reservation.NotForSaleError{},
		&reservation.LimitError{},
		&reservation.AlreadyPaidError{},
		&reservation.PaymentLostError{},
		&reservation.NotReadyError{},
		&stock.RefusedError{},
		&stock.ExcessError{},
		http.ErrServerClosed, // not in the table, so a bug
	}
	for _, a := range answers {
		errs = append(errs, a.err)
	}
	statuses := map[string]int{
		webhooks.CodeUnknown:     http.StatusNotFound,
		webhooks.CodeUnavailable: http.StatusServiceUnavailable,
	}
	for _, err := range errs {
		p := problemFor(err)
		statuses[p.Code] = p.Status
	}
	return statuses
}

func TestDocumentHasTheCodesOfTheTable(t *testing.T) {
	t.Parallel()

	want := statusOfCode()
	var got []string
	for _, code := range loadDocument(t).Components.Schemas["ProblemCode"].Value.Enum {
		got = append(got, code.(string))
	}
	slices.Sort(got)

	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), got); diff != "" {
		t.Errorf("the codes of the table (-) and the document (+) differ:\n%s", diff)
	}
}

// isGateways reports whether the gateway answers with a status: to a caller without a route's
// scope. The service itself answers 403 to a reserve for another owner.
func isGateways(status string) bool { return status == "401" || status == "403" }

func TestARouteWithAScopeDocuments401And403(t *testing.T) {
	t.Parallel()

	doc := loadDocument(t)
	for _, r := range slices.Concat(route.API(), route.Direct()) {
		for status := range doc.Paths.Find(r.Path).GetOperation(r.Method).Responses.Map() {
			if isGateways(status) && r.Guarded(true).Scope == "" {
				t.Errorf("%s is refused with %s, and needs no scope", r.Key(), status)
			}
		}
		for _, status := range []string{"401", "403"} {
			scope := r.Guarded(true).Scope
			response := doc.Paths.Find(r.Path).GetOperation(r.Method).Responses.Value(status)
			if scope != "" && response == nil {
				t.Errorf("%s needs the scope %s, and isn't refused with %s", r.Key(), scope, status)
			}
		}
	}
}

// Every code but NOT_FOUND is an answer of some route. NOT_FOUND answers requests without a route.
func TestEveryCodeIsAnAnswerOfARouteUnderItsStatus(t *testing.T) {
	t.Parallel()

	statuses := statusOfCode()
	unused := maps.Clone(statuses)
	delete(unused, "NOT_FOUND")
	for path, item := range loadDocument(t).Paths.Map() {
		for method, operation := range item.Operations() {
			for status, response := range operation.Responses.Map() {
				for _, code := range codes(response.Value) {
					if strconv.Itoa(statuses[code]) != status {
						t.Errorf(
							"%s %s answers %s with %s, which the service answers with %d",
							method,
							path,
							status,
							code,
							statuses[code],
						)
					}
					delete(unused, code)
				}
				if isGateways(status) {
					continue
				}
				if status >= "400" && len(codes(response.Value)) == 0 {
					t.Errorf("%s %s answers %s without a code", method, path, status)
				}
			}
		}
	}

	if len(unused) > 0 {
		t.Errorf("no route answers with %v", unused)
	}
}

// The routes of the payment side, the support and the back office document what they answer, and no
// more: 401 and 403 are the gateway's.
func TestARouteDocumentsEachCode(t *testing.T) {
	t.Parallel()

	writes := []string{
		"200", "400 VALIDATION_FAILED", "401", "403", "409 IDEMPOTENCY_KEY_IN_USE", "413 BODY_TOO_LARGE",
		"415 UNSUPPORTED_MEDIA_TYPE", "422 IDEMPOTENCY_KEY_REUSED", "500 INTERNAL",
		"500 ANSWER_TOO_LARGE", "503 STOCK_BUSY", "503 DATABASE_UNAVAILABLE",
	}
	catalog := append(slices.Clone(writes), "503 CATALOG_UNFINISHED")
	doc := loadDocument(t)
	for path, want := range map[string][]string{
		"POST /api/catalog/products":   catalog,
		"POST /api/catalog/warehouses": catalog,
		"POST /api/stock/movements": append(slices.Clone(writes), "409 MOVEMENTS_REFUSED",
			"503 MOVEMENTS_INCOMPLETE"),
		"GET /api/stock/movements": {
			"200", "400 VALIDATION_FAILED", "401", "403", "500 INTERNAL", "500 ANSWER_TOO_LARGE",
			"503 STOCK_BUSY", "503 DATABASE_UNAVAILABLE",
		},
		"POST /api/owners/erase": writes,
		"POST /api/reservations/{id}/cancel": append(slices.Clone(writes), "404 RESERVATION_NOT_FOUND",
			"409 RESERVATION_CONFIRMED"),
		"POST /api/reservations/{id}/confirm": append(slices.Clone(writes), "404 RESERVATION_NOT_FOUND",
			"409 ALREADY_PAID", "409 PAYMENT_LOST", "409 RESERVATION_RELEASED",
			"410 RESERVATION_EXPIRED"),
		"POST /api/reservations/{id}/payment": append(slices.Clone(writes), "404 RESERVATION_NOT_FOUND",
			"409 ALREADY_PAID", "409 RESERVATION_RELEASED", "410 RESERVATION_EXPIRED",
			"422 EXTENSION_LIMIT"),
		"POST /api/reservations/{id}/payment/failed": append(slices.Clone(writes),
			"404 RESERVATION_NOT_FOUND", "422 EXTENSION_LIMIT"),
		"GET /api/events": {
			"200", "400 VALIDATION_FAILED", "401", "403", "410 CURSOR_TOO_OLD", "500 INTERNAL",
			"500 ANSWER_TOO_LARGE", "503 STOCK_BUSY", "503 DATABASE_UNAVAILABLE",
		},
		"GET /api/reservations/{id}/payments": {
			"200", "401", "403", "404 RESERVATION_NOT_FOUND", "500 INTERNAL", "500 ANSWER_TOO_LARGE",
			"503 STOCK_BUSY", "503 DATABASE_UNAVAILABLE",
		},
		"GET /api/reservations/{id}/returns": {
			"200", "401", "403", "404 RESERVATION_NOT_FOUND", "500 INTERNAL", "500 ANSWER_TOO_LARGE",
			"503 STOCK_BUSY", "503 DATABASE_UNAVAILABLE",
		},
		"GET /api/reservations/{id}/history": {
			"200", "401", "403", "404 RESERVATION_NOT_FOUND", "500 INTERNAL", "500 ANSWER_TOO_LARGE",
			"503 STOCK_BUSY", "503 DATABASE_UNAVAILABLE",
		},
	} {
		method, path, _ := strings.Cut(path, " ")
		var got []string
		operation := doc.Paths.Find(path).GetOperation(method)
		for status, response := range operation.Responses.Map() {
			names := codes(response.Value)
			for _, code := range names {
				got = append(got, status+" "+code)
			}
			if len(names) == 0 {
				got = append(got, status)
			}
			if header := response.Value.Headers["Retry-After"]; (header != nil) != (status == "503") {
				t.Errorf("%s %s answers %s with Retry-After: %t", method, path, status, header != nil)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the answers of %s %s differ (-want +got):\n%s", method, path, diff)
		}
		if method == http.MethodPost {
			example := operation.Responses.Value("413").Value.Content[problem.ContentType].
				Examples["tooLarge"].Value.Value.(map[string]any)["detail"]
			want := problemFor(errTooLarge).Detail
			if operation.RequestBody.Value.Content[mediaCSV] != nil {
				want = problemFor(errImportTooLarge).Detail
			}
			if example != want {
				t.Errorf("%s %s answers 413 with %q, want %q", method, path, example, want)
			}
		}
	}
}

// codes lists the codes of a response's problem.
func codes(response *openapi3.Response) []string {
	var names []string
	content := response.Content[problem.ContentType]
	if content == nil {
		return nil
	}
	for _, part := range content.Schema.Value.AllOf {
		if code := part.Value.Properties["code"]; code != nil && code.Ref == "" {
			for _, name := range code.Value.Enum {
				names = append(names, name.(string))
			}
		}
	}
	return names
}

func TestEveryAnswerCarriesARequestID(t *testing.T) {
	t.Parallel()

	for path, item := range loadDocument(t).Paths.Map() {
		for method, operation := range item.Operations() {
			for status, response := range operation.Responses.Map() {
				if header := response.Value.Headers["X-Request-Id"]; !isGateways(status) &&
					(header == nil || !header.Value.Required) {
					t.Errorf("%s %s answers %s without X-Request-Id", method, path, status)
				}
			}
		}
	}
}

func TestDocumentHasTheLimitsOfTheCode(t *testing.T) {
	t.Parallel()

	doc := loadDocument(t)
	products := doc.Components.Parameters["ProductLimit"].Value.Schema.Value
	warehouses := doc.Components.Parameters["WarehouseLimit"].Value.Schema.Value
	holds := doc.Components.Parameters["HoldLimit"].Value.Schema.Value
	skus := doc.Paths.Find("/api/products").Get.Parameters.GetByInAndName("query", "sku").Schema.Value
	list := doc.Paths.Find("/api/reservations").Get.Parameters
	rows := doc.Components.Parameters["StockLimit"].Value.Schema.Value
	feed := doc.Components.Parameters["EventLimit"].Value.Schema.Value
	rowFilter := func(name string) *openapi3.Schema {
		return doc.Paths.Find("/api/stock").Get.Parameters.GetByInAndName("query", name).Schema.Value
	}
	minutes := doc.Components.Schemas["Stats"].Value.Properties["minutes"].Value
	quantity := doc.Components.Schemas["Quantity"].Value
	items := doc.Components.Schemas["ReserveCartRequest"].Value.Properties["items"].Value
	key := doc.Components.Parameters["IdempotencyKey"].Value.Schema.Value
	put := func(name string) *openapi3.Schema {
		return doc.Components.Schemas[name].Value.Properties["items"].Value
	}
	got := []any{
		*products.Min,
		*products.Max,
		products.Default,
		*warehouses.Min,
		*warehouses.Max,
		warehouses.Default,
		*holds.Min,
		*holds.Max,
		holds.Default,
		*skus.MaxItems,
		minutes.MinItems,
		*minutes.MaxItems,
		*quantity.Min,
		*quantity.Max,
		items.MinItems,
		*items.MaxItems,
		key.MinLength,
		*key.MaxLength,
		put("PutProductsRequest").MinItems,
		*put("PutProductsRequest").MaxItems,
		*put("PutWarehousesRequest").MaxItems,
		*doc.Components.Schemas["Code"].Value.MaxLength,
		*doc.Components.Schemas["OptionalName"].Value.MaxLength,
		*doc.Components.Schemas["OptionalUnits"].Value.Max,
		*rows.Min,
		*rows.Max,
		rows.Default,
		*feed.Min,
		*feed.Max,
		feed.Default,
		*rowFilter("sku").MaxLength,
		*rowFilter("availableBelow").Max,
		*doc.Components.Schemas["OptionalReference"].Value.MaxLength,
		*doc.Components.Schemas["OptionalOwner"].Value.MaxLength,
		*doc.Components.Schemas["EraseRequest"].Value.Properties["owner"].Value.MaxLength,
		*list.GetByInAndName("query", "reference").Schema.Value.MaxLength,
		*list.GetByInAndName("query", "owner").Schema.Value.MaxLength,
		*doc.Components.Schemas["PaymentReference"].Value.MaxLength,
		*doc.Components.Schemas["ConfirmRequest"].Value.Properties["paymentReference"].Value.MaxLength,
		*doc.Components.Schemas["ReturnRequest"].Value.Properties["reference"].Value.MaxLength,
		*doc.Components.Schemas["ReturnAnswer"].Value.Properties["returned"].Value.MaxItems,
	}
	want := []any{
		1.0,
		float64(reservation.MaxProductPage),
		float64(defaultProductPage),
		1.0,
		float64(reservation.MaxWarehousePage),
		float64(reservation.MaxWarehousePage),
		1.0,
		float64(reservation.MaxHoldPage),
		float64(defaultHoldPage),
		uint64(reservation.MaxSKUs),
		uint64(reservation.StatsMinutes),
		uint64(reservation.StatsMinutes),
		1.0,
		float64(reservation.MaxQuantity),
		uint64(1),
		uint64(reservation.MaxLines),
		uint64(1),
		uint64(reservation.MaxKeyLength),
		uint64(1),
		uint64(stock.MaxItems),
		uint64(stock.MaxItems),
		uint64(stock.MaxCode),
		uint64(stock.MaxName),
		float64(stock.MaxLimit),
		1.0,
		float64(stock.MaxRowPage),
		float64(defaultRowPage),
		1.0,
		float64(outbox.MaxPage),
		float64(defaultEventPage),
		uint64(maxFilterText),
		float64(stock.MaxUnits),
		uint64(reservation.MaxNameLength),
		uint64(reservation.MaxOwnerLength),
		uint64(reservation.MaxOwnerLength),
		uint64(reservation.MaxNameLength),
		uint64(reservation.MaxOwnerLength),
		uint64(reservation.MaxNameLength),
		uint64(reservation.MaxNameLength),
		uint64(stock.MaxReference),
		uint64(stock.MaxReturnLines),
	}

	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the limits of the code (-) and the document (+) differ:\n%s", diff)
	}
}
