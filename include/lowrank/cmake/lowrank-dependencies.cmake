# lowrank_require(<cmake package> <Debian package>): finds a package or stops with the name of the Debian package.
macro(lowrank_require package debian)
  find_package(${package} QUIET)
  if(NOT ${package}_FOUND)
    message(FATAL_ERROR "lowrank needs ${package}, which was not found. On Debian: apt-get install ${debian}")
  endif()
endmacro()

# lowrank_require_library(<library> <header> <Debian package>): the same for a library without a CMake package; makes
# an imported target of the library's name.
macro(lowrank_require_library library header debian)
  find_path(LOWRANK_${library}_INCLUDE ${header})
  find_library(LOWRANK_${library}_LIBRARY ${library})
  if(NOT LOWRANK_${library}_INCLUDE OR NOT LOWRANK_${library}_LIBRARY)
    message(FATAL_ERROR "lowrank needs ${library}, which was not found. On Debian: apt-get install ${debian}")
  endif()
  if(NOT TARGET ${library})
    add_library(${library} UNKNOWN IMPORTED)
    set_target_properties(${library} PROPERTIES IMPORTED_LOCATION ${LOWRANK_${library}_LIBRARY}
                                                INTERFACE_INCLUDE_DIRECTORIES ${LOWRANK_${library}_INCLUDE})
  endif()
endmacro()
