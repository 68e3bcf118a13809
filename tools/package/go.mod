// Pins the packager: go tool -modfile=tools/package/go.mod nfpm
module github.com/etherloom/etherloom/tools/package

go 1.26
