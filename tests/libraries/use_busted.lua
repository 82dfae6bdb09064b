-- needs: lua-busted
arg = { [0] = "busted", "-o", "TAP", "spec" }
package.path = package.path:gsub("%./%?", "./nowhere/?")
require "busted.runner" ({ standalone = false })
