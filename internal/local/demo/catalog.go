package demo

import "github.com/google/uuid"

// Warehouse is a warehouse of the demo catalog.
type Warehouse struct {
	ID   uuid.UUID
	Code string
	Name string
}

// Product is a product of the demo catalog. Its stock is in the order of Warehouses.
type Product struct {
	ID    uuid.UUID
	Name  string
	SKU   string
	Stock [3]int
}

// readmeProducts is how many of Products the README's commands and pictures name.
const readmeProducts = 3

// Warehouses returns the demo's warehouses. Their ids are fixed, so that the README's commands
// work.
func Warehouses() [3]Warehouse {
	return [3]Warehouse{
		{newID("0001"), "SF", "San Francisco"},
		{newID("0002"), "NY", "New York"},
		{newID("0003"), "LA", "Los Angeles"},
	}
}

func newID(end string) uuid.UUID { return uuid.MustParse("0192d000-0000-7000-8000-00000000" + end) }

// Products returns the demo's products, those of the README first. Los Angeles has one mug only.
// The pages have a picture and a price for each SKU.
func Products() []Product {
	return []Product{
		{newID("0101"), "Wireless Headphones", "WH-100", [3]int{12, 5, 8}},
		{newID("0102"), "Mechanical Keyboard", "MK-200", [3]int{20, 3, 15}},
		{newID("0103"), "Ceramic Mug", "CM-300", [3]int{50, 30, 1}},
		{newID("0104"), "Desk Lamp", "DL-110", [3]int{14, 9, 6}},
		{newID("0105"), "Canvas Backpack", "CB-210", [3]int{10, 7, 12}},
		{newID("0106"), "Pour-Over Kettle", "PK-310", [3]int{8, 2, 5}},
		{newID("0107"), "Notebook Set", "NS-120", [3]int{40, 25, 18}},
		{newID("0108"), "Travel Bottle", "TB-220", [3]int{22, 16, 0}},
		{newID("0109"), "Film Camera", "FC-320", [3]int{2, 1, 0}},
		{newID("010a"), "Wool Blanket", "WB-130", [3]int{9, 4, 11}},
		{newID("010b"), "Table Clock", "TC-230", [3]int{6, 0, 3}},
		{newID("010c"), "Potted Monstera", "PM-330", [3]int{5, 3, 4}},
	}
}
