package browser

import (
	"bytes"
	"flag"
	"image"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
)

// Without this flag a run doesn't change the README's picture.
var keepPicture = flag.Bool("picture", false, "put the README's picture into internal/webui")

const (
	pictureHeight = 640
	shopWidth     = 1180
	holdWidth     = 336
	holdScale     = 0.8     // so that the whole hold is seen
	maxPicture    = 150_000 // bytes, which everybody who clones the repository gets
)

// TestPicture makes the README's picture: the shop, and beside it a hold on a telephone.
func TestPicture(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.reserve(
		600,
		line(keyboard, newYork, 2),
		line(headphones, sanFrancisco, 5),
		line(mug, newYork, 12),
		line(headphones, newYork, 3),
	)
	held := s.reserve(600, line(mug, losAngeles, 1))
	shop, hold := s.newTab(), s.newTab()
	shop.visit("/")
	shop.figures("Ceramic Mug", "Los Angeles", 0, 1, 1)
	hold.visit("/reservation/" + held.ID)
	hold.sees(".items", "Ceramic Mug")

	both := image.NewRGBA(image.Rect(0, 0, shopWidth+holdWidth, pictureHeight))
	draw.Draw(
		both,
		image.Rect(0, 0, shopWidth, pictureHeight),
		shop.window("light", shopWidth, 1),
		image.Point{},
		draw.Src,
	)
	draw.Draw(
		both,
		image.Rect(shopWidth, 0, shopWidth+holdWidth, pictureHeight),
		hold.window("dark", holdWidth, holdScale),
		image.Point{},
		draw.Src,
	)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, both); err != nil {
		t.Fatal(err)
	}
	if out.Len() > maxPicture {
		t.Errorf("the picture has %d bytes, want at most %d", out.Len(), maxPicture)
	}
	path := filepath.Join(screenshots, "picture.png")
	if *keepPicture {
		path = "../../webui/picture.png"
	}
	shop.must(os.MkdirAll(filepath.Dir(path), 0o755))
	shop.must(os.WriteFile(path, out.Bytes(), 0o644))
	t.Logf("%s has %d bytes", path, out.Len())
}

// window returns the picture of a window with a width in pixels of the README's picture.
func (b *tab) window(scheme string, width, scale float64) image.Image {
	b.t.Helper()
	b.dress(scheme, int64(width))
	command(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: int64(
			width / scale,
		),
		Height:            int64(pictureHeight / scale),
		DeviceScaleFactor: scale,
		Mobile:            true,
	})
	b.settle()
	shot := command(
		b,
		page.CaptureScreenshot,
		page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatPng},
	)
	picture, err := png.Decode(bytes.NewReader(shot.Data))
	b.must(err)
	return picture
}
