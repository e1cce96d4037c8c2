package browser

import (
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"

	"github.com/allo/reservations/internal/app/grant"
)

// Without this flag a run doesn't change the README's pictures.
var keepPicture = flag.Bool("picture", false, "put the README's pictures into internal/webui")

const (
	pictureHeight = 640
	shopWidth     = 1180
	holdWidth     = 336
	holdScale     = 0.8     // so that the whole hold is seen
	maxPicture    = 150_000 // bytes, which everybody who clones the repository gets
)

// TestPicture makes the README's picture: the shop, and beside it the checkout on a telephone.
func TestPicture(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	shop := s.newTab()
	shop.visit("/")
	shop.add("Ceramic Mug", losAngeles)
	shop.add("Desk Lamp", newYork)
	address := shop.hold()
	shop.visit("/")
	shop.sees(".heldbar", "2 items held for you")
	shop.stands("Wool Blanket", "In stock")
	hold := shop.sibling()
	hold.visit(address)
	hold.sees("h1", "Held for you")
	hold.sees("main", "Ceramic Mug")

	both := image.NewRGBA(image.Rect(0, 0, shopWidth+holdWidth, pictureHeight))
	left := image.Rect(0, 0, shopWidth, pictureHeight)
	right := image.Rect(shopWidth, 0, shopWidth+holdWidth, pictureHeight)
	draw.Draw(both, left, shop.window("light", shopWidth, 1), image.Point{}, draw.Src)
	draw.Draw(both, right, hold.window("dark", holdWidth, holdScale), image.Point{}, draw.Src)
	shop.keep("picture.png", both)
}

// TestPictureOfTheConsole makes the README's second picture: the overview.
func TestPictureOfTheConsole(t *testing.T) {
	t.Parallel()
	s := newGuardedStack(t)
	s.pastHour()
	for i, warehouse := range []int{newYork, losAngeles, sanFrancisco, newYork, losAngeles} {
		s.reserveFor(fmt.Sprintf("order-10%d", i), "ann", line(headphones, warehouse, 1+i%2))
	}
	b := s.newTab()
	b.signIn(grant.GroupAdmin, "/ops")
	b.sees(".tiles", "Live holds5")
	b.sees("section[aria-labelledby=ending]", "order-104")
	b.sees(".health", "All is well")
	b.keep("console.png", b.window("light", shopWidth+holdWidth, 1))
}

// keep writes one of the README's pictures.
func (b *tab) keep(name string, picture image.Image) {
	b.t.Helper()
	var out bytes.Buffer
	b.must((&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, picture))
	if out.Len() > maxPicture {
		b.t.Errorf("%s has %d bytes, want at most %d", name, out.Len(), maxPicture)
	}
	path := filepath.Join(screenshots, name)
	if *keepPicture {
		path = filepath.Join("../../webui", name)
	}
	b.must(os.MkdirAll(filepath.Dir(path), 0o755))
	b.must(os.WriteFile(path, out.Bytes(), 0o644))
	b.t.Logf("%s has %d bytes", path, out.Len())
}

// window returns the picture of a window with a width in pixels of the README's picture.
func (b *tab) window(scheme string, width, scale float64) image.Image {
	b.t.Helper()
	b.dress(scheme, int64(width))
	command(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width:             int64(width / scale),
		Height:            int64(pictureHeight / scale),
		DeviceScaleFactor: scale,
		Mobile:            true,
	})
	b.settle()
	shot := command(b, page.CaptureScreenshot,
		page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatPng})
	picture, err := png.Decode(bytes.NewReader(shot.Data))
	b.must(err)
	return picture
}
