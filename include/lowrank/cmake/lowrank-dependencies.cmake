# lowrank_require(<cmake package> <Debian package>): finds a package or stops with the name of the Debian package.
macro(lowrank_require package debian)
  find_package(${package} QUIET)
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR "lowrank needs ${package}, which was not found. On Debian: apt-get install ${debian}")
  endif()
endmacro()
